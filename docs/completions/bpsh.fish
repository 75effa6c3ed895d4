complete -c bpsh -s I -l input -d 'Standard input from a file on the node' -r
complete -c bpsh -s O -l output -d 'Standard output to a file on the node' -r
complete -c bpsh -s E -l error -d 'Standard error to a file on the node' -r
complete -c bpsh -s b -l line-buffer -d 'Longest line that is kept whole' -r
complete -c bpsh -l chdir -d 'Directory in which the program runs; it is not started where that is not there' -r
complete -c bpsh -l env -d 'A variable of the program\'s environment besides those of this one' -r
complete -c bpsh -l timeout -d 'How long all of it may take; what runs then is ended, exit status 124' -r
complete -c bpsh -l halt -d 'End early: now or soon, when so many have failed, succeeded or are done' -r
complete -c bpsh -l fanout -d 'At most so many at once' -r
complete -c bpsh -l exit -d 'Whose exit status is bpsh\'s' -r -f -a "max\t'The largest'
first\t'That of the first that failed, in time'
rank0\t'That of the first process'
count\t'How many failed, at most 100'"
complete -c bpsh -s l -d 'Accepted for rsh\'s sake, and ignored: the user is always the same' -r
complete -c bpsh -l instance -d 'Which cluster [default: $GHOSTPROC_INSTANCE]' -r
complete -c bpsh -s a -l all -d 'On all nodes that are up'
complete -c bpsh -s A -l all-not-down -d 'On all nodes that are not down'
complete -c bpsh -s n -l null-stdin -d 'Standard input is /dev/null'
complete -c bpsh -s N -l no-io -d 'No standard input, output or error at all'
complete -c bpsh -s L -l lines -d 'Show whole lines only'
complete -c bpsh -s p -l prefix -d 'Prefix each line with its node as BProc did, `  3: ` (implies -L)'
complete -c bpsh -l label -d 'Label each line with its node, `3: ` (implies -L); coloured on a terminal'
complete -c bpsh -s s -l sorted -d 'Show the output node by node, in order'
complete -c bpsh -s d -l divider -d 'Print a divider before each node\'s output'
complete -c bpsh -l gather -d 'Show equal output once, with the nodes that it is from'
complete -c bpsh -l json -d 'Tell everything as events, one JSON object a line'
complete -c bpsh -l tty -d 'Give the program a terminal there: keys, window size and full screen as at the one here'
complete -c bpsh -l dry-run -d 'Only say what would run where'
complete -c bpsh -l detach -d 'Print the PIDs of the ghosts, and leave them running'
complete -c bpsh -l detached -d 'This is the process that stays with what was detached'
complete -c bpsh -s t -l time -d 'Print the total time to standard error'
complete -c bpsh -s v -l version -d 'Print version'
complete -c bpsh -s h -l help -d 'Print help (see more with \'--help\')'
