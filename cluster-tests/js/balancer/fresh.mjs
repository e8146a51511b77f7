// Loaded before a suite: each HTTP request is a connection of its own, which a balancer may take to another node.

import http from "node:http";

http.globalAgent = new http.Agent({ keepAlive: false });
