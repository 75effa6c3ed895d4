//! What ghostd tells of itself is true: by `bpctl metrics`, and over HTTP where that is wanted.

use std::fs;
use std::time::Duration;

use acceptance::metrics::Metrics;
use acceptance::{Cluster, Ended, User, eventually};

const LONG: Duration = Duration::from_secs(60);
const PORT: &str = "/dev/tcp/127.0.0.1/9223";

/// Asked by somebody who is not root.
fn scrape(cluster: &Cluster) -> Metrics {
    let text = cluster.command("bpctl").arg("metrics").user(User::other()).run().success();
    Metrics::parse(&text).unwrap_or_else(|why| panic!("{why}\nin\n{text}"))
}

/// What has been counted since.
fn grown(before: &Metrics, now: &Metrics, key: &str) -> f64 {
    now.follows(before).expect("counters only grow");
    now.get(key) - before.get(key)
}

fn root(cluster: &Cluster, line: &str) -> String {
    cluster.command("bash").args(["-c", line]).run().success()
}

#[test]
fn what_happens_is_counted_once() {
    let cluster = Cluster::attach();
    let nodes = cluster.nodes().len() as f64;
    eventually("all nodes are up", LONG, || {
        (scrape(&cluster).get("ghostproc_nodes{state=\"up\"}") == nodes).then_some(())
    });
    let before = scrape(&cluster);
    cluster.command("bpsh").args(["0", "head", "-c", "100000", "/dev/zero"]).user(User::ordinary()).run().success();
    root(&cluster, "head -c 5000 /dev/zero | bpsh 1-2 sh -c 'cat > /dev/null'");
    cluster.command("bpsh").args(["0", "/nowhere/nothing"]).run().expect(Ended::Exited(127));
    let now = scrape(&cluster);
    for (key, wanted) in [
        ("ghostproc_launches_total", 3.0),
        ("ghostproc_processes_started_total{by=\"launch\"}", 3.0),
        ("ghostproc_processes_not_started_total{reason=\"not_found\"}", 1.0),
        ("ghostproc_processes_ended_total{how=\"lost\"}", 0.0),
        ("ghostproc_stream_bytes_total{stream=\"stdout\"}", 100_000.0),
        ("ghostproc_stream_bytes_total{stream=\"stdin\"}", 5000.0),
        ("ghostproc_launch_seconds_count", 2.0),
        ("ghostproc_process_start_seconds_count", 3.0),
        ("ghostproc_node_losses_total", 0.0),
    ] {
        assert_eq!(grown(&before, &now, key), wanted, "{key}");
    }
    assert!(now.get("ghostproc_launch_seconds_sum") > before.get("ghostproc_launch_seconds_sum"));
    assert!(grown(&before, &now, "ghostproc_processes_ended_total{how=\"exited\"}") >= 3.0);
    assert!(grown(&before, &now, "ghostproc_fuse_requests_total") > 0.0);
    // Ten years, but for a clock that differs.
    let left = now.get("ghostproc_node_certificate_expiry_seconds{node=\"0\"}") - now.get("process_start_time_seconds");
    assert!(left > 9.0 * 365.0 * 86_400.0, "{left}");
    assert!(now.get("process_resident_memory_bytes") > 1e6 && now.get("process_open_fds") > 10.0);
}

#[test]
fn a_signal_is_counted_with_its_time() {
    let cluster = Cluster::attach();
    let before = scrape(&cluster);
    let pid = root(&cluster, "bpsh --detach 3 sleep 1000").trim().to_owned();
    let runs = scrape(&cluster);
    assert_eq!(grown(&before, &runs, "ghostproc_processes_started_total{by=\"launch\"}"), 1.0);
    assert!(runs.get("ghostproc_processes") >= 1.0 && runs.get("ghostproc_ghosts") >= 1.0);
    root(&cluster, &format!("kill -CONT {pid}"));
    let delivered = eventually("the signal is delivered", LONG, || {
        let now = scrape(&cluster);
        (grown(&before, &now, "ghostproc_signals_delivered_total") == 1.0).then_some(now)
    });
    assert_eq!(grown(&before, &delivered, "ghostproc_signals_forwarded_total"), 1.0);
    assert_eq!(grown(&before, &delivered, "ghostproc_signal_seconds_count"), 1.0);
    root(&cluster, &format!("kill -KILL {pid}"));
    let over = eventually("the process is dead", LONG, || {
        let now = scrape(&cluster);
        (grown(&before, &now, "ghostproc_processes_ended_total{how=\"killed\"}") >= 1.0).then_some(now)
    });
    assert_eq!(grown(&before, &over, "ghostproc_signals_forwarded_total"), 2.0);
    eventually("its ghost is gone", LONG, || {
        (scrape(&cluster).get("ghostproc_ghosts") < runs.get("ghostproc_ghosts")).then_some(())
    });
}

#[test]
fn a_node_that_is_lost_shows() {
    let cluster = Cluster::attach();
    let before = scrape(&cluster);
    let sleeping = cluster.command("bpsh").args(["4", "sh", "-c", "echo runs; exec sleep 1000"]).start();
    sleeping.lines(1, LONG);
    let all = cluster.snapshot().processes;
    let holder = all.iter().find(|process| process.member == "n4" && process.is_holder()).expect("a holder");
    ghost_sys::pidfd::kill(holder.pid.cast_signed(), 9).expect("kill");
    sleeping.wait().expect(Ended::Signaled(9));
    let now = eventually("the node is back", LONG, || {
        let now = scrape(&cluster);
        let back = now.get("ghostproc_node_up{node=\"4\"}") == 1.0;
        (back && grown(&before, &now, "ghostproc_node_losses_total") > 0.0).then_some(now)
    });
    assert_eq!(grown(&before, &now, "ghostproc_node_losses_total"), 1.0);
    assert!(grown(&before, &now, "ghostproc_processes_ended_total{how=\"lost\"}") >= 1.0);
    assert!(grown(&before, &now, "ghostproc_node_connections_total") >= 1.0);
}

/// ghostd reads its configuration again, and says this of it.
fn reload(cluster: &Cluster, said: &str) {
    let master = cluster.master();
    ghost_sys::pidfd::kill(master.daemon().cast_signed(), 1).expect("SIGHUP");
    eventually(said, LONG, || master.log_tail(50).contains(said).then_some(()));
}

/// What is answered to these words, as `printf %b` has them; nothing if there is nobody.
fn http(cluster: &Cluster, words: &str) -> String {
    let line = format!("exec 3<>{PORT} || exit 0; printf %b \"$1\" >&3; cat <&3");
    cluster.command("bash").args(["-c", &line, "bash", words]).user(User::other()).run().text()
}

#[test]
fn http_is_off_until_it_is_wanted_and_holds_nobody_up() {
    const GET: &str = "GET /metrics HTTP/1.1\\r\\nHost: master\\r\\n\\r\\n";
    let cluster = Cluster::attach();
    let file = cluster.master().path("/etc/ghostproc/ghostd.toml");
    let configuration = fs::read_to_string(&file).expect("a configuration");
    assert_eq!(http(&cluster, GET), "", "somebody listens");
    fs::write(&file, format!("metrics_listen = \"127.0.0.1:9223\"\n{configuration}")).expect("a configuration");
    reload(&cluster, "metrics_listen: none -> 127.0.0.1:9223");
    let is_told = || {
        let answer = http(&cluster, GET);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/plain; version=0.0.4"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        Some(Metrics::parse(body).unwrap_or_else(|why| panic!("{why}\nin\n{body}")))
    };
    let first = eventually("it is told over HTTP", LONG, is_told);
    for (words, wanted) in [
        ("GET / HTTP/1.1\\r\\n\\r\\n", "HTTP/1.1 404 "),
        ("DELETE /metrics HTTP/1.1\\r\\n\\r\\n", "HTTP/1.1 405 "),
        ("\\0377\\0377\\n\\n", "HTTP/1.1 400 "),
    ] {
        let answer = http(&cluster, words);
        assert!(answer.starts_with(wanted), "{words}: {answer}");
    }
    // Without an end, and longer than anything that is taken: it is left, answered or not.
    http(&cluster, &"x".repeat(20_000));
    // More than are served at once, of whom each says something and no more, or does not fetch what it asked for.
    let line = format!(
        "for i in {{1..40}}; do exec {{fd}}<>{PORT}; printf 'GET /metrics HTTP/1.1\\r\\n' >&$fd; \
         if ((i % 2)); then printf '\\r\\n' >&$fd; fi; done; echo held; sleep 1000"
    );
    let mut hostile = cluster.command("bash").args(["-c", &line]).user(User::other()).start();
    hostile.lines(1, LONG);
    cluster.command("bpsh").args(["0", "true"]).user(User::ordinary()).run().success();
    scrape(&cluster);
    // They have 2 s each for what they do not say; who comes behind them has his turn then.
    let later = eventually("it is told again", LONG, is_told);
    later.follows(&first).expect("counters only grow");
    assert_eq!(hostile.ended(), None, "they are still there");
    hostile.kill();
    // Another ghostd tells them as well; it has not counted what the one before did.
    cluster.command("bpctl").arg("handover").run().success();
    let next = eventually("the next ghostd tells them", LONG, is_told);
    assert_eq!(next.get("ghostproc_takeovers_total"), later.get("ghostproc_takeovers_total") + 1.0);
    fs::write(&file, configuration).expect("a configuration");
    reload(&cluster, "metrics_listen: 127.0.0.1:9223 -> none");
    eventually("nobody listens any more", LONG, || http(&cluster, GET).is_empty().then_some(()));
}
