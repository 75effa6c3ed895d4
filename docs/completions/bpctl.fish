# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_bpctl_global_optspecs
    string join \n instance= S/select= M/master s/state= m/mode= u/user= g/group= r/root= R/reboot H/halt P/poweroff h/help V/version
end

function __fish_bpctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_bpctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_bpctl_using_subcommand
    set -l cmd (__fish_bpctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c bpctl -n "__fish_bpctl_needs_command" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_needs_command" -s S -l select -d 'Nodes that are changed: 0,2-3, up, n[1-3], …' -r
complete -c bpctl -n "__fish_bpctl_needs_command" -s s -l state -d 'Set the state; `unavailable` keeps all but root away, `up` lets them in again (root)' -r -f -a "down\t''
boot\t''
up\t''
error\t''
unavailable\t''
reboot\t''
halt\t''
pwroff\t''"
complete -c bpctl -n "__fish_bpctl_needs_command" -s m -l mode -d 'Who may start programs there, as of a file: 0111 everybody, 0110 owner and group (owner, root)' -r
complete -c bpctl -n "__fish_bpctl_needs_command" -s u -l user -d 'Give them to a user, by name or number (root)' -r
complete -c bpctl -n "__fish_bpctl_needs_command" -s g -l group -d 'Give them to a group (root; the owner, to a group of his)' -r
complete -c bpctl -n "__fish_bpctl_needs_command" -s r -l root -d 'Root directory, on the node, of programs that are placed there from now on; / is the node\'s own (root)' -r
complete -c bpctl -n "__fish_bpctl_needs_command" -s M -l master -d 'The master is changed'
complete -c bpctl -n "__fish_bpctl_needs_command" -s R -l reboot -d 'Restart them (root)'
complete -c bpctl -n "__fish_bpctl_needs_command" -s H -l halt -d 'Halt them (root)'
complete -c bpctl -n "__fish_bpctl_needs_command" -s P -l poweroff -d 'Switch them off (root)'
complete -c bpctl -n "__fish_bpctl_needs_command" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_needs_command" -s V -l version -d 'Print version'
complete -c bpctl -n "__fish_bpctl_needs_command" -f -a "token" -d 'Make a token with which machines can join (root)'
complete -c bpctl -n "__fish_bpctl_needs_command" -f -a "nodes" -d 'List nodes and change which ones belong to the cluster'
complete -c bpctl -n "__fish_bpctl_needs_command" -f -a "handover" -d 'Let the ghostd that is installed now go on in the running one\'s place, with all that runs (root)'
complete -c bpctl -n "__fish_bpctl_needs_command" -f -a "doctor" -d 'Look at the master and all nodes: kernel features, rights, limits, clocks, releases, connections; what is wrong, and what to do (root)'
complete -c bpctl -n "__fish_bpctl_needs_command" -f -a "view" -d 'Whether /proc shows remote processes\' own figures, until ghostd starts anew (root)'
complete -c bpctl -n "__fish_bpctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bpctl -n "__fish_bpctl_using_subcommand token" -l nodes -d 'Good for these node numbers only [default: any]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand token" -l uses -d 'How many machines may join with it [default: one, or one for each of NODES]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand token" -l expires -d 'How long it is valid: 90s, 30m, 12h, 7d [default: 1h]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand token" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand token" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and not __fish_seen_subcommand_from list add remove revoke replace help" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and not __fish_seen_subcommand_from list add remove revoke replace help" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and not __fish_seen_subcommand_from list add remove revoke replace help" -f -a "list" -d 'Show nodes with state, address and, if down, the reason'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and not __fish_seen_subcommand_from list add remove revoke replace help" -f -a "add" -d 'Make nodes exist; until they join they are down (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and not __fish_seen_subcommand_from list add remove revoke replace help" -f -a "remove" -d 'Forget nodes; their certificates are refused from now on (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and not __fish_seen_subcommand_from list add remove revoke replace help" -f -a "revoke" -d 'Refuse nodes from now on, also if they want to join; they stay listed (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and not __fish_seen_subcommand_from list add remove revoke replace help" -f -a "replace" -d 'Let other machines join under these numbers; the present certificates are refused (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and not __fish_seen_subcommand_from list add remove revoke replace help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from list" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from add" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from remove" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from revoke" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from replace" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from replace" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from help" -f -a "list" -d 'Show nodes with state, address and, if down, the reason'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from help" -f -a "add" -d 'Make nodes exist; until they join they are down (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Forget nodes; their certificates are refused from now on (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from help" -f -a "revoke" -d 'Refuse nodes from now on, also if they want to join; they stay listed (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from help" -f -a "replace" -d 'Let other machines join under these numbers; the present certificates are refused (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand nodes; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bpctl -n "__fish_bpctl_using_subcommand handover" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand handover" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_using_subcommand doctor" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand doctor" -s a -l all -d 'Show also what is well'
complete -c bpctl -n "__fish_bpctl_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_using_subcommand view" -l instance -d 'The cluster\'s instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]' -r
complete -c bpctl -n "__fish_bpctl_using_subcommand view" -s h -l help -d 'Print help'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and not __fish_seen_subcommand_from token nodes handover doctor view help" -f -a "token" -d 'Make a token with which machines can join (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and not __fish_seen_subcommand_from token nodes handover doctor view help" -f -a "nodes" -d 'List nodes and change which ones belong to the cluster'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and not __fish_seen_subcommand_from token nodes handover doctor view help" -f -a "handover" -d 'Let the ghostd that is installed now go on in the running one\'s place, with all that runs (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and not __fish_seen_subcommand_from token nodes handover doctor view help" -f -a "doctor" -d 'Look at the master and all nodes: kernel features, rights, limits, clocks, releases, connections; what is wrong, and what to do (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and not __fish_seen_subcommand_from token nodes handover doctor view help" -f -a "view" -d 'Whether /proc shows remote processes\' own figures, until ghostd starts anew (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and not __fish_seen_subcommand_from token nodes handover doctor view help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and __fish_seen_subcommand_from nodes" -f -a "list" -d 'Show nodes with state, address and, if down, the reason'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and __fish_seen_subcommand_from nodes" -f -a "add" -d 'Make nodes exist; until they join they are down (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and __fish_seen_subcommand_from nodes" -f -a "remove" -d 'Forget nodes; their certificates are refused from now on (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and __fish_seen_subcommand_from nodes" -f -a "revoke" -d 'Refuse nodes from now on, also if they want to join; they stay listed (root)'
complete -c bpctl -n "__fish_bpctl_using_subcommand help; and __fish_seen_subcommand_from nodes" -f -a "replace" -d 'Let other machines join under these numbers; the present certificates are refused (root)'
