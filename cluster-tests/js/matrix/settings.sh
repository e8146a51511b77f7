# Settings of the nodes that the shared scenarios are played on. Sourced by whatever starts them.
# The relay server of the reference: with the scenarios' application.
export REFERENCE_APP=scenarios
export FLOTILLA_ENGINE__ALLOW_EIO3=true
# The page of the browser's player talks to all three nodes.
export FLOTILLA_ENGINE__CORS_ORIGINS='["*"]'
