# Settings of the nodes that the suites in this folder talk to. The clients of lib/ read them too, so that
# the suites of client/ can be run with this parser. Sourced by whatever starts those nodes and the suites.
export FLOTILLA_SOCKETIO__PARSER=msgpack
