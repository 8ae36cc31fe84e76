#!/usr/bin/env bash
# The curl lines that people have in their scripts, against a node: only the base URL and the token are changed. Prints what it
# asks for and what comes back.
#
# Run by `sdk/main.rs`, with CLOUDFLARE_BASE_URL, CLOUDFLARE_API_TOKEN, the program in SNICKET, the node's addresses in TUNNEL and
# HTTPS, its authority in CA, and an origin's address in ORIGIN.
set -euo pipefail

api() { # METHOD PATH [JSON]
    echo "$1 $2" >&2
    curl --silent --show-error --request "$1" "$CLOUDFLARE_BASE_URL$2" \
        --header "Authorization: Bearer $CLOUDFLARE_API_TOKEN" \
        --header "Content-Type: application/json" ${3+--data "$3"}
}

# The call works, and answers this of its result.
result() { # FILTER METHOD PATH [JSON]
    local filter=$1
    shift
    api "$@" | jq --exit-status --raw-output "if .success then .result | $filter else error(.errors | tostring) end"
}

# The call is refused with this code.
refused() { # CODE METHOD PATH [JSON]
    local code=$1
    shift
    api "$@" | jq --exit-status "(.success | not) and .errors[0].code == $code" >/dev/null
}

visit() { # PATH: the status of the visitor's request
    curl --silent --output /dev/null --write-out '%{http_code}' --cacert "$CA" \
        --connect-to "::$HTTPS" "https://www.curl.example$1"
}

until_visit() { # STATUS
    for _ in $(seq 200); do
        [ "$(visit /)" = "$1" ] && return
        sleep 0.05
    done
    echo "no $1 within 10 s" >&2
    return 1
}

account=$(result '.[0].id' GET /accounts)
result .status GET /user/tokens/verify

# A zone and its records.
zone=$(result .id POST /zones '{"name":"curl.example","account":{"id":"'"$account"'"},"type":"full"}')
refused 1061 POST /zones '{"name":"curl.example"}'
records=/zones/$zone/dns_records
record=$(result .id POST "$records" '{"type":"A","name":"a.curl.example","content":"192.0.2.1","ttl":3600,"proxied":false}')
refused 81058 POST "$records" '{"type":"A","name":"a.curl.example","content":"192.0.2.1","ttl":3600,"proxied":false}'
refused 1004 POST "$records" '{"type":"A","name":"b","content":"not an address","ttl":1}'
[ "$(result .content PATCH "$records/$record" '{"content":"192.0.2.2"}')" = 192.0.2.2 ]
[ "$(result length GET "$records?type=A&name=a.curl.example")" = 1 ]
curl --silent --fail "$CLOUDFLARE_BASE_URL$records/export" --header "Authorization: Bearer $CLOUDFLARE_API_TOKEN" |
    grep -q '^a.curl.example.'

# A tunnel that serves a name of it.
tunnels=/accounts/$account/cfd_tunnel
tunnel=$(result .id POST "$tunnels" '{"name":"curl","config_src":"cloudflare"}')
refused 1013 POST "$tunnels" '{"name":"curl","config_src":"cloudflare"}'
result .version PUT "$tunnels/$tunnel/configurations" \
    '{"config":{"ingress":[{"hostname":"www.curl.example","service":"'"$ORIGIN"'"},{"service":"http_status:404"}]}}'
named=$(result .id POST "$records" '{"type":"CNAME","name":"www","content":"'"$tunnel"'.cfargotunnel.com","proxied":true}')
token=$(mktemp)
result . GET "$tunnels/$tunnel/token" >"$token"
"$SNICKET" tunnel --edge "$TUNNEL" --cacert "$CA" run --token-file "$token" &
agent=$!
trap 'kill "$agent" 2>/dev/null || true; rm -f "$token"' EXIT
until_visit 200
[ "$(result .status GET "$tunnels/$tunnel")" != inactive ]
refused 1022 DELETE "$tunnels/$tunnel"

# Load balancing, and an origin that leaves.
balancing=/accounts/$account/load_balancers
monitor=$(result .id POST "$balancing/monitors" '{"type":"https","path":"/health","expected_codes":"2xx","interval":60}')
pool=$(result .id POST "$balancing/pools" \
    '{"name":"main","monitor":"'"$monitor"'","origins":[{"name":"a","address":"192.0.2.1"},{"name":"b","address":"192.0.2.2"}]}')
balancer=$(result .id POST "/zones/$zone/load_balancers" \
    '{"name":"lb.curl.example","default_pools":["'"$pool"'"],"fallback_pool":"'"$pool"'","proxied":true}')
[ "$(result '.origins | length' PATCH "$balancing/pools/$pool" '{"origins":[{"name":"b","address":"192.0.2.2"}]}')" = 1 ]
api DELETE "$balancing/pools/$pool" | jq --exit-status '.success | not' >/dev/null

# All of it away again.
result .id DELETE "/zones/$zone/load_balancers/$balancer"
result .id DELETE "$balancing/pools/$pool"
result .id DELETE "$balancing/monitors/$monitor"
result .id DELETE "$records/$named"
until_visit 530
kill "$agent"
wait "$agent"
result .deleted_at DELETE "$tunnels/$tunnel"
result .id DELETE "/zones/$zone"
refused 7003 GET "/zones/$zone"
echo "walked to the end"
