# shellcheck shell=bash
# scripts/quickstart --here and --remove: vnet on this machine, to keep. Sourced by quickstart.

UNIT=/usr/local/lib/systemd/system/vnet-netd.service
SYSUSERS=/usr/local/lib/sysusers.d/vnet.conf
LOG=/var/log/vnet-netd.log
PID=/run/vnet/netd.pid

# All that --here puts on the machine, and --remove takes away.
INSTALLED=(
    /usr/local/bin/vnet
    /usr/local/sbin/netd
    /usr/local/lib/vnet/vnet-vmm
    /usr/local/lib/vnet/vnet-guest
    "$UNIT"
    "$SYSUSERS"
)

systemd_runs() { [[ -d /run/systemd/system ]]; }

# on_host_here: installs, starts netd, creates `default` unless it is there, and probes it.
on_host_here() {
    ((EUID == 0)) || die "--here installs under /usr/local: run it as root"
    need iproute2=ip nftables=nft || exit 1
    need_devices || exit 1
    build_release

    heading "Installing under /usr/local"
    install -D -m 755 -t /usr/local/bin "$BIN/vnet"
    install -D -m 755 -t /usr/local/sbin "$BIN/netd"
    install -D -m 755 -t /usr/local/lib/vnet "$BIN/vnet-vmm" "$BIN/vnet-guest"
    install -D -m 644 netconf/systemd/vnet-netd.service "$UNIT"
    install -D -m 644 netconf/sysusers.d/vnet.conf "$SYSUSERS"
    printf '%s\n' "${INSTALLED[@]}"
    getent group vnet >/dev/null || groupadd --system vnet
    note "members of the group vnet may use vnet without root: adduser USER vnet"

    heading "netd, the network daemon"
    if systemd_runs; then
        shown systemctl daemon-reload
        shown systemctl enable vnet-netd.service
        # It may run already, an older one.
        shown systemctl restart vnet-netd.service
    else
        start_without_systemd
    fi

    heading "A network, and a guest on it"
    vnet show default &>/dev/null || shown vnet create nat default
    local status=0
    shown vnet list || status=1
    shown vnet probe default || status=1

    heading "What is where"
    cat <<TEXT
networks      /etc/vnet/networks/*.toml; \`vnet list\`, \`vnet show default\`
leases        /var/lib/vnet; \`vnet leases\`
$(systemd_runs && echo "netd          systemctl status vnet-netd, journalctl -u vnet-netd" ||
        echo "netd          runs in the background (kill \$(cat $PID) ends it), its log is $LOG;
              nothing starts it after a reboot, because this machine does not run systemd")
remove it     scripts/quickstart --remove
TEXT
    ((status == 0)) || die "vnet is installed, but the probe has failed; see above"
}

start_without_systemd() {
    stop_without_systemd
    mkdir -p "$(dirname "$PID")"
    : >"$LOG"
    setsid /usr/local/sbin/netd >>"$LOG" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$PID"
    local output follower status=0
    exec {output}< <(exec tail -n +1 -f --pid="$!" "$LOG")
    follower=$!
    wait_for_line "netd is ready" 30 /dev/null <&"$output" || status=1
    kill "$follower" 2>/dev/null || true
    cat "$LOG"
    ((status == 0)) || die "netd does not start; its log is $LOG"
}

# Ends the netd that `start_without_systemd` has started, if it still is one.
stop_without_systemd() {
    local pid
    [[ -r $PID ]] && pid=$(<"$PID") || return 0
    if [[ $(readlink "/proc/$pid/exe") == /usr/local/sbin/netd* ]]; then
        kill "$pid"
        tail --pid="$pid" -f /dev/null
    fi
    rm -f "$PID"
}

# on_host_remove: deletes all networks through netd, ends it, and removes what --here has installed.
on_host_remove() {
    ((EUID == 0)) || die "--remove takes away what is under /usr/local: run it as root"
    heading "Deleting the networks"
    if [[ -x /usr/local/bin/vnet ]]; then
        local list name networks
        list=$(/usr/local/bin/vnet list) ||
            die "netd must run so that it can take its networks away: start it, then try again"
        mapfile -t networks < <(awk 'NR > 1 { print $1 }' <<<"$list")
        for name in "${networks[@]}"; do
            shown /usr/local/bin/vnet delete "$name" || die "network $name stays: stop its guests first"
        done
    fi

    heading "Removing vnet from /usr/local"
    if systemd_runs; then
        ! systemctl --quiet is-enabled vnet-netd.service 2>/dev/null ||
            shown systemctl disable --now vnet-netd.service
    else
        stop_without_systemd
    fi
    rm -fv "${INSTALLED[@]}" "$LOG"
    rm -rf /var/lib/vnet /run/vnet
    rmdir --ignore-fail-on-non-empty /usr/local/lib/vnet 2>/dev/null || true
    rmdir --ignore-fail-on-non-empty /etc/vnet/networks /etc/vnet 2>/dev/null || true
    ! systemd_runs || systemctl daemon-reload
    ! getent group vnet >/dev/null || groupdel vnet
    good "
vnet is removed. Packages that it used (nftables, iproute2) stay."
}
