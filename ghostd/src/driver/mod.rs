//! The edge: sockets, the pin, the kernel programs and the clock around the core. One thread; a turn takes an event
//! through the core and carries out what it wants, without waiting for anything.

mod above;
mod batch;
mod changes;
mod clients;
mod examine;
mod handover;
mod kernel;
mod metrics;
mod node_up;
mod nodes;
mod outbox;
mod pin;
mod relays;
mod reload;
mod rings;
mod seats;
mod splice;
mod status_line;
mod store;
mod takeover;
mod view;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use ghost_abi::GhostState;
use ghost_host::examine::announce;
use ghost_host::pin::{Pin, PinFile};
use ghost_host::programs::Programs;
use ghost_host::requirements::{Role, fit};
use ghost_proto::Control;
use ghost_proto::client::{Admin, MasterToClient};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::instance::Instance;
use ghost_sys::priority;
use ghost_sys::ring::Budget;
use ghost_trust::{Serial, tls};
use nix::time::{ClockId, clock_gettime};
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::config::Config;
use crate::core::{Action, ClientId, Core, Directory, Event, LinkId, NodeFacts, Settings, User};
use crate::files::Files;
use crate::membership::{Listed, Membership};
use outbox::Outbox;
use rings::{ALL_RINGS, Rings};
use store::Store;

/// How long the end of the process space may take before what is left is left to the nodes' leases.
const LONGEST_END: Duration = Duration::from_secs(10);
const SLOW_TICK: Duration = Duration::from_millis(250);
/// Between two looks at the ghosts' nice values.
const NICE_PERIOD: Duration = Duration::from_secs(1);
const FAST_TICK: Duration = Duration::from_millis(10);
/// How long nobody has come or gone when freed memory goes back to the kernel.
const QUIET: Duration = Duration::from_secs(1);

pub(crate) type Shared = Rc<RefCell<Driver>>;

struct ClientPort {
    outbox: Rc<Outbox>,
    /// `None`: it runs on a node.
    pidfd: Option<OwnedFd>,
    pid: u32,
    uid: u32,
    pin: Option<PinFile>,
    rings: Rings,
    /// From now on it is connected with this, and says nothing more to ghostd.
    spliced: Option<tokio::net::UnixStream>,
}

struct NodePort {
    outbox: Rc<Outbox>,
    number: NodeNumber,
    serial: Serial,
    /// Of its certificate, in seconds since 1970.
    expires: i64,
}

pub(crate) struct Driver {
    core: Core,
    membership: Membership,
    pin: Pin,
    programs: Programs,
    clients: HashMap<ClientId, ClientPort>,
    above: above::Above,
    nodes: HashMap<LinkId, NodePort>,
    events: VecDeque<Event>,
    /// Launches that wait for the opener.
    pins_wanted: VecDeque<(ClientId, LaunchId)>,
    /// What the kernel had dropped of a ghost's signals when last looked.
    dropped: HashMap<ProcId, GhostState>,
    /// The view's guard, while there is one.
    view: Option<view::Guard>,
    /// What outlasts this process.
    store: Store,
    /// Records that were acted on before the ring is read, and are perhaps in it as well.
    replayed: BTreeSet<u64>,
    relays: relays::Relays,
    seats: clients::SharedSeats,
    /// What runs for nodes that come.
    node_ups: node_up::Runs,
    next_connection: u64,
    ring_budget: Budget,
    started: Duration,
    /// Who has asked for another program in this one's place, to be served by the main loop.
    handover: Option<ClientId>,
    handover_wanted: Rc<Notify>,
    examinations: examine::Examinations,
    door: metrics::Door,
    /// Connections on the nodes' port that were turned away.
    connections_refused: u64,
    /// Another program is about to go on: no command's connection is taken any more.
    leaving: Rc<Notify>,
}

struct Members<'a>(&'a Membership);

impl Directory for Members<'_> {
    fn nodes(&self) -> Vec<NodeFacts> {
        self.0.nodes().into_iter().map(facts).collect()
    }

    fn node(&self, number: NodeNumber) -> Option<NodeFacts> {
        self.0.node(number).map(facts)
    }

    fn may_use(&self, number: NodeNumber, user: &User) -> bool {
        self.0.may_use(number, user.uid, user.gid, &user.groups)
    }
}

fn facts(listed: Listed) -> NodeFacts {
    NodeFacts {
        number: listed.number,
        mode: listed.permissions.mode,
        uid: listed.permissions.uid,
        gid: listed.permissions.gid,
        reason: listed.reason().to_owned(),
        held: listed.held,
        root: listed.root,
        address: listed.address,
        hostname: listed.hostname,
    }
}

impl Driver {
    fn connection_id(&mut self) -> u64 {
        self.next_connection += 1;
        self.next_connection
    }

    fn is_gathering(&self) -> bool {
        self.core.is_gathering(boot_time().saturating_sub(self.started))
    }

    /// Differs from what it was when a command or a node has come or gone.
    fn comings_and_goings(&self) -> (u64, usize) {
        (self.next_connection, self.clients.len() + self.nodes.len())
    }

    /// Takes an event, and all that follows from it, through the core.
    fn turn(&mut self, event: Event) {
        self.events.push_back(event);
        self.settle();
    }

    /// Reads the nice values of all ghosts.
    fn look_at_nice_values(&mut self) {
        let ghosts = self.core.watched_ghosts().into_iter();
        let values: Vec<_> = ghosts.filter_map(|(id, pid)| Some((id, priority::nice_of(pid).ok()?))).collect();
        self.turn(Event::NiceSeen { values });
    }

    /// Takes what waits through the core.
    fn settle(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let now = boot_time().saturating_sub(self.started);
            for action in self.core.handle(event, now, &Members(&self.membership)) {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::TellClient { client, message } => {
                if let Some(port) = self.clients.get_mut(&client) {
                    if let MasterToClient::Resumed(resumed) = &message {
                        port.rings.set_window(resumed.window);
                    }
                    port.outbox.control(message.to_frame(), None);
                }
            }
            Action::SendClient { client, data } => {
                if let Some(port) = self.clients.get_mut(&client) {
                    match port.rings.place(&data) {
                        Some((placed, descriptor)) => port.outbox.placed(placed, descriptor),
                        None => port.outbox.bulk(data),
                    }
                }
            }
            Action::CloseClient { client } => {
                if let Some(port) = self.clients.get(&client) {
                    port.outbox.close();
                }
            }
            Action::TellNode { link, message, .. } => {
                if let Some(port) = self.nodes.get(&link) {
                    port.outbox.control(message.to_frame(), None);
                }
            }
            Action::SendNode { link, data, .. } => {
                if let Some(port) = self.nodes.get(&link) {
                    port.outbox.bulk(data);
                }
            }
            Action::CloseNode { link, .. } => {
                if let Some(port) = self.nodes.get(&link) {
                    port.outbox.close();
                }
            }
            Action::OpenPin { client, launch } => {
                self.pins_wanted.push_back((client, launch));
                self.hand_out_pins();
            }
            Action::Launched { client, message } => {
                if let Some(port) = self.clients.get_mut(&client) {
                    if let MasterToClient::Launched(launched) = &message {
                        port.rings.set_window(launched.window);
                    }
                    let descriptor = port.pin.take().map(|file| file.fd);
                    port.outbox.control(message.to_frame(), descriptor);
                    self.above.want(client, port.pid, port.uid);
                }
            }
            Action::Serve { client, server, arguments } => self.splice(client, server, arguments),
            Action::LookAbove { launch, pid, uid } => {
                if let Some(origin) = self.origin_of(pid, uid) {
                    self.events.push_back(Event::AboveLaunch { launch, origin });
                }
            }
            Action::Adopt { process, token, pid, parent, uid, tag } => {
                self.adopt(process, token, pid, parent, uid, tag);
            }
            Action::NoteNode { node, epoch, holder } => {
                self.store.note_node(node, epoch, holder);
                self.relays.node_lost(node);
            }
            Action::NoteStage { node, stage } => self.store.note_stage(node, &stage),
            Action::ChangeNodes(change) => self.change_nodes(change),
            Action::RunNodeUp { node, run, hostname, address } => self.node_ups.want(node, run, hostname, address),
            Action::StopNodeUp { run } => self.node_ups.stop(run),
            Action::AnswerGhost { token, answer } => self.answer(token, answer),
            Action::Beget { token, maker, process, birth, tag } => self.beget(token, maker, process, birth, tag),
            Action::Withdraw { process, maker } => self.withdraw(process, maker),
            Action::AskGroup { process, pid } => self.ask_group(process, pid),
            Action::InterruptGhost { token } => self.refuse(token, libc_errno::EINTR),
            Action::RefuseRead { token } => self.refuse(token, libc_errno::EPERM),
            Action::ContinueGhost { process, pid } => self.continue_ghost(process, pid),
            Action::ContinueLauncher { client } => self.signal_launcher(client, nix::libc::SIGCONT),
            Action::KillLauncher { client } => self.signal_launcher(client, nix::libc::SIGKILL),
            Action::ContinueAbsent { launch, pid } => self.continue_absent(launch, pid),
            Action::ShowGhost { process, pid, uid, gid, node } => self.show_ghost(process, pid, (uid, gid), node),
            Action::HideGhost { process } => self.hide_ghost(process),
            Action::TellAgent { link, message, .. } => {
                if let Some(port) = self.nodes.get(&link) {
                    port.outbox.control(message.to_frame(), None);
                }
            }
            Action::TellView(message) => self.tell_view(message),
            Action::TellMetrics { client } => self.tell_metrics(client),
            Action::Admin { client, admin } => self.administer(client, &admin),
        }
    }

    fn answer_admin(&self, client: ClientId, outcome: Result<Vec<String>, String>) {
        if let Some(port) = self.clients.get(&client) {
            port.outbox.control(Core::admin_reply(outcome).to_frame(), None);
        }
    }

    fn administer(&mut self, client: ClientId, admin: &Admin) {
        if let Admin::Handover(_) = admin {
            self.ask_for_handover(client);
            return;
        }
        if let Admin::Examine(_) = admin {
            self.begin_examination(client);
            return;
        }
        if let Admin::View(view) = admin {
            self.events.push_back(Event::ViewSwitched { on: view.on });
        }
        let outcome = self.membership.admin(admin, SystemTime::now());
        match &outcome {
            Ok(_) => tracing::info!(request = Core::admin_name(admin), "done for root"),
            Err(error) => tracing::warn!(request = Core::admin_name(admin), "refused: {error}"),
        }
        self.answer_admin(client, outcome);
        self.dismiss_refused();
    }

    /// Some nodes may not belong to the cluster any more.
    fn dismiss_refused(&mut self) {
        let dismissed: Vec<(NodeNumber, String)> = self
            .nodes
            .values()
            .filter_map(|port| {
                let refusal = self.membership.check_peer(port.number, port.serial).err()?;
                Some((port.number, refusal.to_string()))
            })
            .collect();
        for (node, reason) in dismissed {
            tracing::warn!(node = node.0, "disconnected: {reason}");
            self.events.push_back(Event::NodeDismissed { node });
        }
    }
}

/// Numbers of errno(3) by name.
mod libc_errno {
    pub(super) use nix::libc::{EINTR, EPERM};
}

fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

fn configuration(files: &Files) -> Result<Config> {
    Config::load(&files.config).map_err(|error| {
        if files.config.exists() {
            anyhow::Error::from(error)
        } else {
            anyhow::Error::from(error).context("run `ghostd init` first")
        }
    })
}

/// What ghostd needs of root's rights, with what it starts.
const RIGHTS: [u32; 11] = {
    use ghost_sys::capability::*;
    [
        // The kernel programs, also of a kernel that asks for the older right; the pin and the view are mounts.
        CAP_BPF,
        CAP_PERFMON,
        CAP_SYS_ADMIN,
        // To look at ghosts and commands of all users, and to continue them.
        CAP_SYS_PTRACE,
        CAP_KILL,
        // To read configuration and run directories whoever owns them.
        CAP_DAC_OVERRIDE,
        CAP_DAC_READ_SEARCH,
        // A port below 1024; the buffers and the congestion control of its connections.
        CAP_NET_BIND_SERVICE,
        CAP_NET_ADMIN,
        // More descriptors, and memory of kernel programs, than the limits allow.
        CAP_SYS_RESOURCE,
        // Nothing beyond what CAP_SYS_ADMIN gives (include/linux/capability.h, checkpoint_restore_ns_capable()); but bpsh, which has
        // it by its file, could not be executed by node_up without it (security/commoncap.c, bprm_caps_from_vfs_caps()).
        CAP_CHECKPOINT_RESTORE,
    ]
};

/// Gives up what of root's rights is not needed, for this process and all that it starts. Who takes its place by `bpctl
/// handover` has no more than it.
fn drop_rights() -> std::io::Result<()> {
    ghost_sys::capability::gain_nothing_more()?;
    ghost_sys::capability::keep_only(&RIGHTS)
}

/// Whether the daemon could run, as far as that can be said without starting it.
///
/// # Errors
/// It could not: what is wrong, and the way out.
pub fn check(files: &Files) -> Result<()> {
    let config = configuration(files)?;
    fit(Role::Master).map_err(anyhow::Error::msg)?;
    Membership::open(files, &config)?;
    tls::server_config(&files.load_master()?).context("the master's own certificate")?;
    Ok(())
}

/// Runs the daemon until it is told to end.
///
/// # Errors
/// It cannot start: what is missing, and the way out.
pub fn run(instance: &Instance, files: &Files) -> Result<()> {
    let config = configuration(files)?;
    ghost_log::start(&config.log)?;
    fit(Role::Master).map_err(anyhow::Error::msg)?;
    announce(Role::Master);
    ghost_sys::inherit::raise_descriptor_limit();
    ghost_sys::heap::keep_freed_memory();
    if let Err(why) = drop_rights() {
        tracing::warn!("the rights of root that are not needed cannot be given up: {why}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(instance, files, config))
}

async fn serve(instance: &Instance, files: &Files, mut config: Config) -> Result<()> {
    let run_directory = instance.run();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&run_directory)
        .with_context(|| format!("directory {}", run_directory.display()))?;
    let _lock = lock(&run_directory.join("ghostd.lock"))?;
    let membership = Membership::open(files, &config)?;
    let server = tls::server_config(&files.load_master()?).context("the master's own certificate")?;
    let takeover::Begun { mut pin, programs, mut kept, store, before } = takeover::begin(&run_directory.join("pin"))?;
    // It is taken off when everything has ended, and not before.
    pin.leave();
    let tcp = match takeover::tcp(&mut kept, config.listen) {
        Some(listener) => listener,
        None => TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {} (`listen` in {})", config.listen, files.config.display()))?,
    };
    let unix = match takeover::unix(&mut kept, &instance.ghostd_socket()) {
        Some(listener) => listener,
        None => bind_socket(&instance.ghostd_socket(), config.socket_mode)?,
    };
    drop(kept);
    store::keep(store::TCP, tcp.as_fd());
    store::keep(store::UNIX, unix.as_fd());

    let passed = Rc::new(handover::Passed::new(&unix, &tcp)?);

    let descriptors = ghost_sys::inherit::descriptor_limit();
    let mut seed = [0u8; 8];
    getrandom(&mut seed)?;
    let settings = Settings {
        // Never 0, which stands for "none".
        epoch: u64::from_ne_bytes(seed) | 1,
        lease: config.lease,
        margin: config.margin,
        program: concat!("ghostd ", env!("CARGO_PKG_VERSION")).to_owned(),
        view: config.view,
        node_up: config.node_up.is_some(),
        first_id: store.generation() << 40,
    };
    let shared: Shared = Rc::new(RefCell::new(Driver {
        core: Core::new(settings),
        membership,
        pin,
        programs,
        clients: HashMap::new(),
        nodes: HashMap::new(),
        events: VecDeque::new(),
        pins_wanted: VecDeque::new(),
        above: above::Above::default(),
        dropped: HashMap::new(),
        view: None,
        store,
        replayed: BTreeSet::new(),
        relays: relays::Relays::new(u64::from_ne_bytes(seed)),
        seats: clients::seats(descriptors),
        node_ups: node_up::Runs::new(instance, &config),
        next_connection: 0,
        ring_budget: Budget::new(ALL_RINGS),
        started: boot_time(),
        handover: None,
        handover_wanted: Rc::default(),
        examinations: examine::Examinations::default(),
        door: metrics::Door::default(),
        connections_refused: 0,
        leaving: Rc::default(),
    }));

    if let Some(before) = before {
        if before.pid == std::process::id() {
            takeover::adopt_children();
        }
        shared.borrow_mut().recover(&before)?;
    }
    let mut failed = kernel::watch(&shared)?;
    above::watch(&shared);
    node_up::watch(&shared);
    tokio::task::spawn_local(clients::accept(unix, Rc::clone(&shared)));
    tokio::task::spawn_local(nodes::accept(tcp, server.into(), descriptors, Rc::clone(&shared)));
    view::begin(&shared, &run_directory);
    metrics::open(&shared, config.metrics_listen);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // RestartKillSignal= of the unit: another one comes.
    let mut hand_over = signal(SignalKind::user_defined2())?;
    // Not being told by a service manager is no error.
    // The watchdog counts from the last sign of this process, whichever program it ran: several may follow one another quickly.
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Watchdog, NotifyState::Status("ready")]);
    tracing::info!(instance = instance.as_str(), listen = %config.listen, "ready");

    let watchdog = sd_notify::watchdog_enabled().map(|period| period / 3);
    let mut last_sign = boot_time();
    let mut last_nice = boot_time();
    let mut status = status_line::StatusLine::default();
    let mut ending_since = None;
    let mut surplus = Surplus::default();
    let handover_wanted = Rc::clone(&shared.borrow().handover_wanted);
    let (ready_to_go, mut go) = tokio::sync::mpsc::channel(1);
    loop {
        let restless = shared.borrow().core.is_restless();
        tokio::select! {
            _ = terminate.recv() => begin_end(&shared, &mut ending_since, "SIGTERM"),
            _ = interrupt.recv() => begin_end(&shared, &mut ending_since, "SIGINT"),
            _ = hangup.recv() => reload::reload(&shared, files, &instance.ghostd_socket(), &mut config),
            _ = hand_over.recv() => {
                tracing::info!("SIGUSR2: everything is left to the next ghostd");
                shared.borrow_mut().node_ups.kill_all();
                return Ok(());
            }
            () = handover_wanted.notified() => {
                let (shared, passed, ready_to_go) = (Rc::clone(&shared), Rc::clone(&passed), ready_to_go.clone());
                tokio::task::spawn_local(async move {
                    if handover::prepare(&shared, &passed).await {
                        let _ = ready_to_go.send(()).await;
                    }
                });
            }
            Some(()) = go.recv() => return Err(handover::go(&shared, &passed)),
            error = failed.recv() => {
                if let Some(error) = error {
                    return Err(error);
                }
            }
            () = tokio::time::sleep(if restless { FAST_TICK } else { SLOW_TICK.min(watchdog.unwrap_or(SLOW_TICK)) }) => {
                let mut driver = shared.borrow_mut();
                driver.turn(Event::Tick);
                driver.settle_signals();
                driver.end_examinations();
            }
        }
        let now = boot_time();
        if now.saturating_sub(last_nice) >= NICE_PERIOD {
            last_nice = now;
            shared.borrow_mut().look_at_nice_values();
        }
        if watchdog.is_some_and(|period| now.saturating_sub(last_sign) >= period) {
            last_sign = now;
            let _ = ghost_sys::notify::tell(&NotifyState::Watchdog.to_string());
        }
        if surplus.is_ripe(shared.borrow().comings_and_goings(), now) {
            ghost_sys::heap::give_back();
        }
        status.tell(now, || {
            let driver = shared.borrow();
            let (up, ghosts) = driver.core.figures();
            (up, driver.membership.count(), ghosts)
        });
        if let Some(since) = ending_since {
            if shared.borrow().core.is_over() {
                break;
            }
            if now.saturating_sub(since) > LONGEST_END {
                tracing::warn!("not everything has ended in time; the nodes end the rest when their leases run out");
                break;
            }
        }
    }
    let _ = fs::remove_file(instance.ghostd_socket());
    shared.borrow_mut().node_ups.kill_all();
    takeover::forget_all(&shared.borrow().programs);
    let _ = ghost_sys::fuse::unmount(&run_directory.join("pin"));
    // Let the last words to commands and nodes out.
    tokio::time::sleep(Duration::from_millis(20)).await;
    tracing::info!("ended");
    Ok(())
}

/// When the heap's free memory, kept for the next work, is to go back to the kernel: when for a while nobody has come or gone, and again
/// when four times as long nobody has, and so on; what was in use the first time may be free then.
#[derive(Default)]
struct Surplus {
    seen: (u64, usize),
    since: Duration,
    given: u32,
}

impl Surplus {
    fn is_ripe(&mut self, seen: (u64, usize), now: Duration) -> bool {
        if seen != self.seen {
            *self = Surplus { seen, since: now, given: 0 };
        }
        let ripe = now.saturating_sub(self.since) >= QUIET * 4u32.saturating_pow(self.given.min(8));
        self.given += u32::from(ripe);
        ripe
    }
}

fn begin_end(shared: &Shared, ending_since: &mut Option<Duration>, name: &str) {
    if ending_since.is_none() {
        *ending_since = Some(boot_time());
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        tracing::info!("{name}: ending all remote processes");
        shared.borrow_mut().turn(Event::End);
    }
}

/// One ghostd an instance.
fn lock(path: &Path) -> Result<nix::fcntl::Flock<fs::File>> {
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("lock file {}", path.display()))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            anyhow::anyhow!("another ghostd of this instance runs; end it first, or choose another --instance")
        } else {
            anyhow::Error::from(errno).context(format!("lock file {}", path.display()))
        }
    })
}

fn bind_socket(path: &Path, mode: u32) -> Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("socket {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("socket {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("socket {}", path.display()))?;
    Ok(listener)
}

fn getrandom(bytes: &mut [u8]) -> Result<()> {
    use std::io::Read;
    fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(bytes)).context("/dev/urandom")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_when_it_is_quiet_and_more_and_more_rarely() {
        let mut surplus = Surplus::default();
        let mut given = |from: u64, to: u64, seen: u64| -> Vec<u64> {
            let ripe = |second: &u64| surplus.is_ripe((seen, 0), Duration::from_secs(*second));
            (from..to).filter(ripe).collect()
        };
        assert_eq!(given(100, 200, 1), [101, 104, 116, 164]);
        assert_eq!(given(200, 210, 2), [201, 204], "somebody has come");
    }
}
