//! What a program on a node finds above itself: the master's parent, group and session, by their numbers; signals to them
//! arrive as if they were sent here.

use std::time::Duration;

use acceptance::{Cluster, Ended, User, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a script on the master that leads a session, as who has logged in does.
#[track_caller]
fn session(cluster: &Cluster, user: User, script: &str) -> String {
    let command = cluster.command("setsid").args(["--wait", "bash", "-c", script]).user(user).limit(PATIENCE * 4);
    // What the shell says of jobs that were killed goes to its standard error.
    command.run().expect(Ended::Exited(0)).text()
}

/// Nothing but the holder is left in the nodes' cluster namespaces.
#[track_caller]
fn nothing_stays(cluster: &Cluster) {
    eventually("no stand-in remains", PATIENCE, || {
        let snapshot = cluster.snapshot();
        (snapshot.remote().count() + snapshot.stand_ins().count() == 0).then_some(())
    });
}

#[test]
fn parent_group_and_session_have_the_masters_numbers() {
    let cluster = Cluster::attach();
    // The numbers that a program sees of itself: with job control the launcher leads a group, or is in its pipeline's;
    // without it is in its session leader's; and it may lead a session itself.
    let look = r#"sh -c 'set -- $(cat /proc/$$/stat); echo $4 $5 $6'"#;
    let script = format!(
        "set -m
        bpsh 1 {look} > /tmp/upwards.$$ & echo $! $! $$; wait; cat /tmp/upwards.$$
        sleep 2 | {{ sh -c 'echo $PPID'; exec bpsh 1 {look}; }} > /tmp/upwards.$$ & echo $$ $(jobs -p); wait
        cat /tmp/upwards.$$
        set +m
        bpsh 1 {look} > /tmp/upwards.$$ & echo $! $$ $$; wait; cat /tmp/upwards.$$
        setsid --wait sh -c 'echo $$ $$ $$; exec bpsh 1 {}'
        rm /tmp/upwards.$$",
        look.replace('\'', r#"'"'"'"#)
    );
    for user in [User::ordinary(), User::root()] {
        let text = session(&cluster, user, &script);
        let lines: Vec<&str> = text.lines().collect();
        let [leads, seen, piped, its_pid, seen_piped, joins, seen_joined, alone, seen_alone] = lines[..] else {
            panic!("{text}");
        };
        assert_eq!((leads, joins, alone), (seen, seen_joined, seen_alone), "{text}");
        let (session, group) = piped.split_once(' ').expect("two numbers");
        assert_eq!(format!("{its_pid} {group} {session}"), seen_piped, "{text}");
    }
    nothing_stays(&cluster);
}

#[test]
fn each_signal_to_the_session_and_the_parent_arrives_once() {
    let cluster = Cluster::attach();
    // The last thing that the sender does; by the program itself, and by a child of its, whose ghost may be behind that
    // of its parent, which the launcher waits for. The session's leader is no shell: bash loses a trap's `$((...))` that
    // comes while it reads a command substitution.
    let script = r#"exec python3 -c '
import os, signal, subprocess
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
def bpsh(node, program):
    return subprocess.run(["bpsh", node, "sh", "-c", program]).returncode
def arrived(seconds):
    return signal.sigtimedwait([signal.SIGUSR1], seconds) is not None
got = []
for _ in range(10):
    bpsh("0", f"kill -USR1 {os.getpid()}; kill -9 $$")
    got.append(arrived(30))
    bpsh("1", f"env kill -USR1 {os.getpid()}; exit 0")
    got.append(arrived(30))
print(got.count(True), arrived(0.3))
print(bpsh("0", "kill -WINCH $PPID && kill -0 $PPID && exit 5"))
print(bpsh("0", "kill -9 $PPID; exec sleep 1000"))
'"#;
    assert_eq!(session(&cluster, User::ordinary(), script), "20 False\n5\n-9\n");
    nothing_stays(&cluster);
}

#[test]
fn the_senders_number_and_value_arrive() {
    let cluster = Cluster::attach();
    cluster.node(0).install("probe");
    let script = r#"
        python3 -c '
import os, signal, subprocess
signal.pthread_sigmask(signal.SIG_BLOCK, [40, 41])
sender = "import ctypes, os, sys; p = int(sys.argv[1]); os.kill(p, 40); ctypes.CDLL(None).sigqueue(p, 41, ctypes.c_void_p(77)); print(os.getpid(), flush=True)"
told = subprocess.run(["bpsh", "0", "python3", "-c", sender, str(os.getpid())], stdout=subprocess.PIPE)
for number in (40, 41):
    info = signal.sigtimedwait([number], 30)
    print(info.si_signo, info.si_code, info.si_pid == int(told.stdout), info.si_uid)
'"#;
    assert_eq!(session(&cluster, User::ordinary(), script), "40 0 True 1000\n41 -1 True 1000\n");
}

#[test]
fn a_group_signal_reaches_every_member_once_wherever_it_is() {
    let cluster = Cluster::attach();
    // Two launches and local processes in one group; the launchers themselves ignore this signal.
    let script = r#"
        member='trap "echo got" URG; echo ready; i=0; while [ $i -lt 25 ]; do sleep .1; i=$((i+1)); done'
        trap 'echo got' URG
        (eval "$member") > /tmp/upwards.$$.a & 
        bpsh 0,1 sh -c "$member" > /tmp/upwards.$$.b &
        bpsh 0,0 sh -c "$member" > /tmp/upwards.$$.c &
        for i in $(seq 200); do [ "$(cat /tmp/upwards.$$.? | grep -c ready)" = 5 ] && break; sleep .05; done
        bpsh 0 sh -c 'trap "" URG; kill -URG 0'
        wait
        while ! wait; do :; done
        for part in a b c; do grep -c got /tmp/upwards.$$.$part; done
        rm /tmp/upwards.$$.?"#;
    let text = session(&cluster, User::ordinary(), script);
    assert_eq!(text, "got\n1\n2\n2\n", "the session's leader, a local child, a launch on two nodes, one on one node");
    nothing_stays(&cluster);
}

#[test]
fn a_group_kill_takes_everything_everywhere() {
    let cluster = Cluster::attach();
    let script = r#"
        set -m
        { sleep 1000 & bpsh 0,1 sleep 1001 & bpsh 0 sh -c 'sleep 1; kill -9 0'; } &
        wait $!; echo $?"#;
    assert_eq!(session(&cluster, User::ordinary(), script), "137\n");
    nothing_stays(&cluster);
    let left = cluster.snapshot().of("master").filter(|process| process.name == "sleep").count();
    assert_eq!(left, 0, "sleep of the group on the master");
}

#[test]
fn another_users_session_is_out_of_reach() {
    let cluster = Cluster::attach();
    let script = r#"
        trap 'echo got' USR1
        setpriv --reuid 1000 --regid 1000 --clear-groups bpsh 0 sh -c "kill -USR1 $$ 2> /dev/null; echo \$?; kill -URG \$PPID; echo \$?"
        bpsh 0 sh -c "kill -USR1 $$; echo \$?"
        sleep .5"#;
    assert_eq!(session(&cluster, User::root(), script), "1\n0\n0\ngot\n");
}

#[test]
fn a_stand_in_that_is_stopped_again_and_again_holds_nobody_up() {
    let cluster = Cluster::attach();
    let script = r#"
        bpsh 0 sh -c 'while :; do kill -STOP '$$'; done' 2> /dev/null & attacker=$!
        setsid sh -c 'while kill -CONT '$$'; do :; done' > /dev/null 2>&1 &
        for i in 1 2 3 4 5; do bpsh 0 sh -c 'exit 3'; echo $?; done
        kill -9 $attacker; wait $attacker; echo $?"#;
    // The shell stops too, as it should: somebody outside sees to it that it goes on.
    assert_eq!(session(&cluster, User::ordinary(), script), "3\n3\n3\n3\n3\n137\n");
    nothing_stays(&cluster);
}

#[test]
fn a_signal_to_one_launcher_is_for_its_launch_alone() {
    let cluster = Cluster::attach();
    // Without job control both launches are in the session leader's group.
    let script = r#"
        bpsh 0,0 sh -c 'echo ready; sleep 1000 & wait' > /tmp/upwards.$$.a & a=$!
        bpsh 0,0 sh -c 'echo ready; i=0; while [ $i -lt 20 ]; do sleep .1; i=$((i+1)); done; exit 4' > /tmp/upwards.$$.b & b=$!
        for i in $(seq 200); do [ "$(cat /tmp/upwards.$$.? | grep -c ready)" = 4 ] && break; sleep .05; done
        kill $a; wait $a; echo $?; wait $b; echo $?
        rm /tmp/upwards.$$.?"#;
    assert_eq!(session(&cluster, User::ordinary(), script), "143\n4\n");
    nothing_stays(&cluster);
}

/// Two ranks on two nodes say their numbers; then both are told one of them.
const TWO_RANKS: &str = r#"
    mkfifo /tmp/upwards.$$.in
    two() {
        bpsh 0,1 sh -c "$1" < /tmp/upwards.$$.in > /tmp/upwards.$$.out & launcher=$!
        exec 3> /tmp/upwards.$$.in
        for i in $(seq 300); do [ "$(grep -c . /tmp/upwards.$$.out)" = 2 ] && break; sleep .1; done
        peer=$(tail -n 1 /tmp/upwards.$$.out)
        echo $peer >&3
        exec 3>&-
        wait $launcher; status=$?
        tail -n +3 /tmp/upwards.$$.out
    }"#;

#[test]
fn a_rank_finds_another_one_on_another_node_by_its_number() {
    let cluster = Cluster::attach();
    // It is there a moment after the launch has begun, and gone a moment after its end.
    let script = format!(
        r#"{TWO_RANKS}
        two 'trap "echo got \$\$; exit 4" USR1; echo $$; read peer
            if [ $peer = $$ ]; then while :; do sleep .05; done; fi
            until kill -USR1 $peer 2> /dev/null; do sleep .05; done
            while kill -0 $peer 2> /dev/null; do sleep .05; done'
        [ $peer != 0 ] && echo $status
        two 'echo $$; read peer
            if [ $peer = $$ ]; then exec sleep 1000; fi
            until kill -9 $peer 2> /dev/null; do sleep .05; done; echo killed'
        echo $status
        rm /tmp/upwards.$$.*"#
    );
    for user in [User::ordinary(), User::root()] {
        let text = session(&cluster, user, &script);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            matches!(lines[..], [got, "4", "killed", "137"] if got.starts_with("got ")),
            "a handler, its status, a kill, its status: {text}"
        );
    }
    nothing_stays(&cluster);
}

#[test]
fn a_rank_may_not_signal_another_one_whose_user_is_not_its_own() {
    let cluster = Cluster::attach();
    let script = format!(
        r#"{TWO_RANKS}
        two 'trap "echo got" USR1; echo $$; read peer
            if [ $peer = $$ ]; then i=0; while [ -e /tmp/upwards.stay ]; do sleep .05; done; exit 0; fi
            setpriv --reuid 1000 --regid 1000 --clear-groups sh -c "
                while env LC_ALL=C kill -USR1 $peer 2>&1 | grep -q No.such; do sleep .05; done
                env LC_ALL=C kill -USR1 $peer 2>&1 | grep -o not.permitted"
            kill -9 $peer'
        rm /tmp/upwards.$$.*"#
    );
    for node in [0, 1] {
        std::fs::write(cluster.node(node).path("/tmp/upwards.stay"), "").expect("a file on the node");
    }
    assert_eq!(session(&cluster, User::root(), &script), "not permitted\n");
    nothing_stays(&cluster);
}

#[test]
fn stand_ins_outlast_ghostd() {
    let cluster = Cluster::attach();
    let name = "/tmp/upwards.go";
    let file = cluster.node(1).path(name);
    // The numbers and signals of a program that has begun before; by itself and by a child.
    let script = format!(
        r#"
import os, signal, subprocess, time
got = 0
def note(*_):
    global got
    got += 1
signal.signal(signal.SIGUSR1, note)
session = os.getpid()
program = """echo begun
    while [ -e {name} ]; do sleep .02; done
    set -- $(cat /proc/$$/stat); echo $4 $5 $6
    kill -USR1 SESSION
    env kill -USR1 SESSION
    exit 3""".replace("SESSION", str(session))
launcher = subprocess.Popen(["bpsh", "1", "sh", "-c", program])
print(launcher.pid, session, session, flush=True)
status = launcher.wait()
until = time.monotonic() + 30
while got < 1 and time.monotonic() < until:
    time.sleep(.1)
time.sleep(.3)
print(got, status)"#
    );
    for round in 0..6 {
        std::fs::write(&file, "").expect("a file on the node");
        let words = ["--wait", "python3", "-c", &script];
        let running = cluster.command("setsid").args(words).user(User::ordinary()).limit(PATIENCE * 4).start();
        running.lines(2, PATIENCE);
        cluster.master().control("kill SIGKILL");
        let again =
            || eventually("ghostd", PATIENCE, || (cluster.master().control("status").state == "running").then_some(()));
        // In every other round the signals are sent when there is no ghostd.
        if round % 2 == 0 {
            again();
        }
        std::fs::remove_file(&file).expect("the file");
        let text = running.wait().expect(Ended::Exited(0)).text();
        let mut lines: Vec<&str> = text.lines().filter(|line| *line != "begun").collect();
        let last = lines.pop().unwrap_or_default();
        assert!(matches!(lines[..], [above, seen] if above == seen), "round {round}: {text}");
        // A signal that is pending already stands for both.
        assert!(["1 3", "2 3"].contains(&last), "round {round}: {text}");
        again();
    }
    nothing_stays(&cluster);
}
