#!/bin/sh
# Installs, upgrades and removes ghostproc from its tarball, on distributions without Debian's packages.
#
# An upgrade ends no remote process: files are replaced by renaming, daemons that run are restarted, which hand everything over.
set -eu

version='@VERSION@'

usage() {
    cat <<END
Usage: ./install.sh [install|upgrade|uninstall] --role master|node [OPTIONS]

  install      (default) install the programs of a role, and of both if --role is given twice
  upgrade      the same over an installation, then restart what runs; remote processes go on
  uninstall    stop the daemon, which ends remote processes, and remove the files

  --role ROLE      master (ghostd) or node (nodeagent); both get bpsh, bpcp, bpstat, bpctl
  --prefix DIR     where to [/usr/local]
  --destdir DIR    put everything below DIR instead of /, and start nothing
  --purge          with uninstall: configuration, keys and logs as well
  --no-systemd     no units
  -h, --help       this text
END
}

stop() {
    echo "install.sh: $*" >&2
    exit 1
}

say() {
    echo "install.sh: $*" >&2
}

action=install
roles=
prefix=/usr/local
destdir=
purge=no
units=auto
while [ $# -gt 0 ]; do
    case $1 in
    install | upgrade | uninstall) action=$1 ;;
    --role | --prefix | --destdir)
        [ $# -ge 2 ] || stop "$1 needs a value; see --help"
        case $1 in
        --role) roles="$roles $2" ;;
        --prefix) prefix=$2 ;;
        --destdir) destdir=$2 ;;
        esac
        shift
        ;;
    --role=*) roles="$roles ${1#*=}" ;;
    --prefix=*) prefix=${1#*=} ;;
    --destdir=*) destdir=${1#*=} ;;
    --purge) purge=yes ;;
    --no-systemd) units=no ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) stop "\`$1\` is not understood; see --help" ;;
    esac
    shift
done

[ -n "$roles" ] || stop "--role master, --role node, or both; see --help"
for role in $roles; do
    case $role in
    master | node) ;;
    *) stop "there is no role \`$role\`: master or node" ;;
    esac
done
case $prefix in
/*) ;;
*) stop "--prefix $prefix: an absolute path is needed" ;;
esac
case $prefix in
*[!A-Za-z0-9/._+-]*) stop "--prefix $prefix: only letters, digits and /._+- can be in it, since it goes into unit files" ;;
esac
prefix=${prefix%/}
[ -n "$prefix" ] || stop "--prefix / is no place to install to"
case $destdir in
"" | /*) ;;
*) destdir=$(pwd)/$destdir ;;
esac
destdir=${destdir%/}
[ "$purge" = no ] || [ "$action" = uninstall ] || stop "--purge belongs to uninstall"
case $(uname -s)/$(uname -m) in
Linux/x86_64) ;;
*) stop "these programs are for Linux on x86-64, this is $(uname -s) on $(uname -m)" ;;
esac
[ -n "$destdir" ] || [ "$(id -u)" = 0 ] || stop "only root can install to $prefix (or give --destdir)"

# What runs here is only touched if what is installed is for here.
running=no
if [ -z "$destdir" ] && [ "$units" = auto ] && [ -d /run/systemd/system ]; then
    running=yes
fi
if [ "$units" = auto ]; then
    units=yes
    # Without systemd units are of no use.
    [ -n "$destdir" ] || command -v systemctl >/dev/null 2>&1 || units=no
fi
case $prefix in
# Places that systemd reads.
/usr | /usr/local) unit_directory=$prefix/lib/systemd/system ;;
*) unit_directory=/etc/systemd/system ;;
esac

lists=$destdir$prefix/share/ghostproc
source=$(cd "$(dirname "$0")" && pwd)

package_of() {
    case $1 in
    master) echo ghostproc ;;
    node) echo ghostproc-node ;;
    esac
}

daemon_of() {
    case $1 in
    master) echo ghostd ;;
    node) echo nodeagent ;;
    esac
}

# from 6.9 on a restart of ghostd hands everything over
hands_over() {
    release=$(uname -r)
    major=${release%%.*}
    rest=${release#*.}
    minor=${rest%%[!0-9]*}
    [ "$major" -gt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -ge 9 ]; }
}

# place FROM TO MODE: a program that runs is not written into, its name gets another file.
place() {
    mkdir -p "$(dirname "$destdir$2")"
    rm -f "$destdir$2.new"
    cp "$1" "$destdir$2.new"
    chmod "$3" "$destdir$2.new"
    mv -f "$destdir$2.new" "$destdir$2"
    echo "$2" >>"$list.new"
}

install_package() {
    package=$1
    [ -d "$source/$package" ] || stop "$source/$package is not there: run install.sh in the unpacked tarball"
    mkdir -p "$lists"
    list=$lists/$package.files
    : >"$list.new"
    (cd "$source/$package" && find . -type f) | sed 's|^\./||' | sort >"$list.source"
    while read -r file; do
        case $file in
        lib/systemd/system/*)
            [ "$units" = yes ] || continue
            sed "s|/usr/sbin/|$prefix/sbin/|" "$source/$package/$file" >"$list.unit"
            place "$list.unit" "$unit_directory/${file##*/}" 644
            rm -f "$list.unit"
            ;;
        bin/* | sbin/* | libexec/*) place "$source/$package/$file" "$prefix/$file" 755 ;;
        *) place "$source/$package/$file" "$prefix/$file" 644 ;;
        esac
    done <"$list.source"
    rm -f "$list.source"
    # What the version before had, and this one has not.
    if [ -f "$list" ]; then
        while read -r file; do
            grep -qxF "$file" "$list.new" || rm -f "$destdir$file"
        done <"$list"
    fi
    mv -f "$list.new" "$list"
}

remove_package() {
    list=$lists/$1.files
    if [ ! -f "$list" ]; then
        say "$1 is not installed below $destdir$prefix"
        return 0
    fi
    while read -r file; do
        rm -f "$destdir$file"
        remove_directory "$(dirname "$destdir$file")"
    done <"$list"
    rm -f "$list"
}

# A directory that is empty now, and those above it up to the prefix; what belongs to the system stays.
remove_directory() {
    case $1 in
    */ghostproc) ;;
    "$destdir"/usr/* | "$destdir"/etc/*) return 0 ;;
    "$destdir$prefix" | "$destdir$prefix"/*) ;;
    *) return 0 ;;
    esac
    rmdir "$1" 2>/dev/null || return 0
    remove_directory "$(dirname "$1")"
}

give_capability() {
    [ -z "$destdir" ] || return 0
    if ! setcap cap_checkpoint_restore=ep "$prefix/bin/bpsh" 2>/dev/null; then
        say "bpsh has no capability cap_checkpoint_restore: the ghosts of what programs fork do not have their numbers"
        say "(setcap is in libcap's tools: setcap cap_checkpoint_restore=ep $prefix/bin/bpsh)"
    fi
}

state_of() {
    systemctl show --property=ActiveState --value "$1.service" 2>/dev/null || echo inactive
}

go_on() {
    daemon=$1
    case $(state_of "$daemon") in
    inactive | failed)
        return 0
        ;;
    esac
    # The lease runs on while nodeagent is not there: one that cannot begin is not put in the place of one that works.
    if [ "$daemon" = nodeagent ] && ! why=$("$prefix/sbin/nodeagent" check 2>&1); then
        say "the nodeagent before goes on running, the installed one cannot: $why"
        return 0
    fi
    if [ "$daemon" = ghostd ]; then
        if ! why=$("$prefix/sbin/ghostd" check 2>&1); then
            say "the ghostd before goes on running, the installed one cannot: $why"
            return 0
        fi
        case $(systemctl show --property=StatusText --value ghostd.service) in
        *", 0 ghosts") ;;
        *)
            if ! hands_over; then
                say "the ghostd before goes on running: on Linux $(uname -r) remote processes would end with it (6.9 or later hands them over)."
                say "When nothing runs on the nodes: systemctl restart ghostd"
                return 0
            fi
            ;;
        esac
    fi
    systemctl restart "$daemon.service" || say "$daemon could not be restarted; see: systemctl status $daemon"
}

purge_role() {
    case $1 in
    master)
        rm -f "$destdir/etc/ghostproc/ghostd.toml" "$destdir/etc/ghostproc/.ghostd.toml.new"
        rm -f "$destdir/etc/ghostproc/node_up" "$destdir/etc/ghostproc/groups.toml"
        rm -rf "$destdir/var/log/ghostproc"
        if [ -d "$destdir/var/lib/ghostproc" ]; then
            find "$destdir/var/lib/ghostproc" -mindepth 1 -maxdepth 1 ! -name node ! -name .node.new -exec rm -rf {} +
        fi
        ;;
    node)
        rm -f "$destdir/etc/ghostproc/nodeagent.toml"
        rm -rf "$destdir/var/lib/ghostproc/node" "$destdir/var/lib/ghostproc/.node.new"
        ;;
    esac
    for directory in /etc/ghostproc /var/lib/ghostproc; do
        rmdir "$destdir$directory" 2>/dev/null || true
    done
}

case $action in
install | upgrade)
    install_package ghostproc-tools
    give_capability
    for role in $roles; do
        install_package "$(package_of "$role")"
    done
    if [ "$running" = yes ]; then
        systemctl daemon-reload
        for role in $roles; do
            daemon=$(daemon_of "$role")
            systemctl enable --quiet "$daemon.service"
            go_on "$daemon"
        done
    fi
    for role in $roles; do
        say "ghostproc $version is installed as $role in $destdir$prefix"
        case $role in
        master) [ -e "$destdir/etc/ghostproc/ghostd.toml" ] || say "next: ghostd init --listen ADDRESS, then start ghostd" ;;
        node) [ -e "$destdir/var/lib/ghostproc/node/identity.toml" ] || say "next: nodeagent join MASTER < TOKEN_FILE, then start nodeagent" ;;
        esac
        if [ "$running" = no ] && [ -z "$destdir" ]; then
            case $role in
            master) say "without systemd: \`bpctl handover\` lets the installed ghostd go on in the place of one that runs" ;;
            node) say "without systemd: end a nodeagent that runs by SIGTERM and start the installed one; processes go on" ;;
            esac
        fi
    done
    ;;
uninstall)
    for role in $roles; do
        daemon=$(daemon_of "$role")
        if [ "$running" = yes ]; then
            case $(state_of "$daemon") in
            inactive | failed) ;;
            *) say "stopping $daemon: remote processes end" ;;
            esac
            systemctl disable --now --quiet "$daemon.service" 2>/dev/null || true
        fi
        remove_package "$(package_of "$role")"
        [ "$purge" = no ] || purge_role "$role"
    done
    # The commands go with the last role.
    if [ ! -f "$lists/ghostproc.files" ] && [ ! -f "$lists/ghostproc-node.files" ]; then
        remove_package ghostproc-tools
        rmdir "$lists" 2>/dev/null || true
        remove_directory "$destdir$prefix/share"
    fi
    if [ "$running" = yes ]; then
        systemctl daemon-reload
    fi
    ;;
esac
