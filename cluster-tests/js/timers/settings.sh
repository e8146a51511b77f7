# Settings of the nodes that the suites in this folder talk to: times short enough to wait for, and
# origins for CORS. Sourced by whatever starts those nodes and the suites.
export FLOTILLA_ENGINE__PING_INTERVAL=400ms
export FLOTILLA_ENGINE__PING_TIMEOUT=800ms
export FLOTILLA_ENGINE__UPGRADE_TIMEOUT=1s
export FLOTILLA_SOCKETIO__CONNECT_TIMEOUT=2s
export FLOTILLA_ENGINE__CORS_ORIGINS='["http://app.example","http://other.example"]'
