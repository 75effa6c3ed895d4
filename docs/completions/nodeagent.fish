# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nodeagent_global_optspecs
    string join \n instance= h/help V/version
end

function __fish_nodeagent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nodeagent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nodeagent_using_subcommand
    set -l cmd (__fish_nodeagent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nodeagent -n "__fish_nodeagent_needs_command" -l instance -d 'Name of the cluster on this host, in every path' -r
complete -c nodeagent -n "__fish_nodeagent_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodeagent -n "__fish_nodeagent_needs_command" -s V -l version -d 'Print version'
complete -c nodeagent -n "__fish_nodeagent_needs_command" -f -a "join" -d 'Make this machine a node of the cluster of MASTER'
complete -c nodeagent -n "__fish_nodeagent_needs_command" -f -a "run" -d 'Run the daemon (the default)'
complete -c nodeagent -n "__fish_nodeagent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nodeagent -n "__fish_nodeagent_using_subcommand join" -l node -d 'Ask for this node number instead of the one that the master would give' -r
complete -c nodeagent -n "__fish_nodeagent_using_subcommand join" -l token-file -d 'Read the token from this file' -r -F
complete -c nodeagent -n "__fish_nodeagent_using_subcommand join" -l token -d 'Known so that it can be explained why it is refused' -r
complete -c nodeagent -n "__fish_nodeagent_using_subcommand join" -l force -d 'Take the new identity even if this machine is a node already'
complete -c nodeagent -n "__fish_nodeagent_using_subcommand join" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodeagent -n "__fish_nodeagent_using_subcommand run" -s h -l help -d 'Print help'
complete -c nodeagent -n "__fish_nodeagent_using_subcommand help; and not __fish_seen_subcommand_from join run help" -f -a "join" -d 'Make this machine a node of the cluster of MASTER'
complete -c nodeagent -n "__fish_nodeagent_using_subcommand help; and not __fish_seen_subcommand_from join run help" -f -a "run" -d 'Run the daemon (the default)'
complete -c nodeagent -n "__fish_nodeagent_using_subcommand help; and not __fish_seen_subcommand_from join run help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
