#!/bin/sh
# A CNI plugin (containernetworking/cni, SPEC.md 0.4.0): plugs a pod into a bridge with the address
# that its sandbox's annotation `kubesim/pod-network` says, and keeps whose address is whose in the
# folder $KUBESIM_ADDRESSES. As `loopback` it only brings that up.
set -e
conf=$(tr -d '\\"\n')
field() { printf %s "$conf" | sed -n "s/.*[{,]$1:\([^,}]*\).*/\1/p"; }
version=$(printf %s "$conf" | sed -n 's/.*cniVersion: *\([0-9.]*\).*/\1/p')
fail() { printf '{"cniVersion":"%s","code":100,"msg":"%s"}' "$version" "$1"; exit 1; }
inside() { nsenter --net="$CNI_NETNS" "$@"; }
id=$(printf %.8s "$CNI_CONTAINERID")

if [ "$CNI_COMMAND" = VERSION ]; then
    echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}'
elif [ "${0##*/}" = loopback ]; then
    [ "$CNI_COMMAND" != ADD ] || inside ip link set lo up
    printf '{"cniVersion":"%s","interfaces":[{"name":"lo"}]}' "$version"
elif [ "$CNI_COMMAND" = DEL ]; then
    ip link del "v$id" 2>/dev/null || true
    for held in "$KUBESIM_ADDRESSES"/*; do
        [ ! -e "$held/$id" ] || rm -r "$held"
    done
elif [ "$CNI_COMMAND" = ADD ]; then
    address=$(field address)
    mkdir -p "$KUBESIM_ADDRESSES"
    mkdir "$KUBESIM_ADDRESSES/${address%/*}" 2>/dev/null ||
        fail "requested IP address ${address%/*} is not available"
    : >"$KUBESIM_ADDRESSES/${address%/*}/$id"
    ip link add "v$id" type veth peer name "p$id"
    ip link set "v$id" master "$(field bridge)" mtu "$(field mtu)" up
    ip link set "p$id" mtu "$(field mtu)" netns "$CNI_NETNS"
    inside ip link set "p$id" name "$CNI_IFNAME" up
    inside ip addr add "$address" dev "$CNI_IFNAME"
    inside ip route add default via "$(field gateway)"
    printf '{"cniVersion":"%s","interfaces":[{"name":"%s","sandbox":"%s"}],' \
        "$version" "$CNI_IFNAME" "$CNI_NETNS"
    printf '"ips":[{"version":"4","address":"%s","interface":0}]}' "$address"
fi
