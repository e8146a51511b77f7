# Settings of the nodes that the suites in this folder talk to: times short enough to wait for, but longer than a busy
# machine may keep a client that means well; and origins for CORS. Sourced by whatever starts those nodes and the suites.
export FLOTILLA_ENGINE__PING_INTERVAL=400ms
export FLOTILLA_ENGINE__PING_TIMEOUT=8s
export FLOTILLA_ENGINE__UPGRADE_TIMEOUT=6s
export FLOTILLA_SOCKETIO__CONNECT_TIMEOUT=6s
export FLOTILLA_ENGINE__CORS_ORIGINS='["http://app.example","http://other.example"]'
