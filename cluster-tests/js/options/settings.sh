# Settings of the nodes that the suite in this folder compares with the official server, which it gives the same ones.
# Sourced by whatever starts those nodes and the suite.
export FLOTILLA_ENGINE__CORS='{origin=["http://app.example","/\\.other\\.example$/"],credentials=true,exposed_headers=["x-served-by"],max_age="10m"}'
export FLOTILLA_ENGINE__COOKIE='{name="affinity",max_age="1h",secure=true,same_site="none"}'
export FLOTILLA_ENGINE__ADD_TRAILING_SLASH=false
