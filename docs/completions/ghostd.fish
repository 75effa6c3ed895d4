# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_ghostd_global_optspecs
    string join \n instance= config= h/help V/version
end

function __fish_ghostd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_ghostd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_ghostd_using_subcommand
    set -l cmd (__fish_ghostd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c ghostd -n "__fish_ghostd_needs_command" -l instance -d 'Name of the cluster on this host, in every path' -r
complete -c ghostd -n "__fish_ghostd_needs_command" -l config -d 'Configuration file [default: /etc/INSTANCE/ghostd.toml]' -r -F
complete -c ghostd -n "__fish_ghostd_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ghostd -n "__fish_ghostd_needs_command" -s V -l version -d 'Print version'
complete -c ghostd -n "__fish_ghostd_needs_command" -f -a "init" -d 'Make a new cluster: its CA, the master\'s certificate, the configuration file'
complete -c ghostd -n "__fish_ghostd_needs_command" -f -a "run" -d 'Run the daemon (the default)'
complete -c ghostd -n "__fish_ghostd_needs_command" -f -a "check" -d 'Say whether ghostd could run here, with this configuration; start nothing'
complete -c ghostd -n "__fish_ghostd_needs_command" -f -a "import-config" -d 'Read a BProc or Clustermatic configuration: prints one for ghostd, and on standard error what became of each line'
complete -c ghostd -n "__fish_ghostd_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ghostd -n "__fish_ghostd_using_subcommand init" -l listen -d 'Address and port on which nodes are awaited' -r
complete -c ghostd -n "__fish_ghostd_using_subcommand init" -l force -d 'Replace a cluster that is already there'
complete -c ghostd -n "__fish_ghostd_using_subcommand init" -s h -l help -d 'Print help'
complete -c ghostd -n "__fish_ghostd_using_subcommand run" -s h -l help -d 'Print help'
complete -c ghostd -n "__fish_ghostd_using_subcommand check" -s h -l help -d 'Print help'
complete -c ghostd -n "__fish_ghostd_using_subcommand import-config" -s h -l help -d 'Print help'
complete -c ghostd -n "__fish_ghostd_using_subcommand help; and not __fish_seen_subcommand_from init run check import-config help" -f -a "init" -d 'Make a new cluster: its CA, the master\'s certificate, the configuration file'
complete -c ghostd -n "__fish_ghostd_using_subcommand help; and not __fish_seen_subcommand_from init run check import-config help" -f -a "run" -d 'Run the daemon (the default)'
complete -c ghostd -n "__fish_ghostd_using_subcommand help; and not __fish_seen_subcommand_from init run check import-config help" -f -a "check" -d 'Say whether ghostd could run here, with this configuration; start nothing'
complete -c ghostd -n "__fish_ghostd_using_subcommand help; and not __fish_seen_subcommand_from init run check import-config help" -f -a "import-config" -d 'Read a BProc or Clustermatic configuration: prints one for ghostd, and on standard error what became of each line'
complete -c ghostd -n "__fish_ghostd_using_subcommand help; and not __fish_seen_subcommand_from init run check import-config help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
