# Settings of the nodes that api.io's clients talk to. Sourced by whatever starts them.
export FLOTILLA_ENGINE__ALLOW_EIO3=true
# What api.io's client shows as its `sessionId`.
export FLOTILLA_SESSION__SOURCES='["cookie"]'
export FLOTILLA_SESSION__COOKIE__NAME=apiio
export FLOTILLA_SESSION__REQUIRE_SIGNED=false
