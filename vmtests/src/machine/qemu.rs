//! QEMU's command line and process. It ends with the runner, however that ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::root::{Root, recipe::Seat};

/// What is the same for all machines of a run. Their sockets, disks and consoles are in the current directory.
#[derive(Debug, Clone)]
pub struct Hardware {
    pub root: Root,
    /// Image with the agent and the packages, mounted read-only at /run/vmtests.
    pub products: PathBuf,
    /// Use the host's processor where the host lets us.
    pub kvm: bool,
}

impl Hardware {
    pub fn file(seat: Seat, kind: &str) -> PathBuf {
        format!("{}.{kind}", seat.name).into()
    }

    /// Starts a machine on the root's image; what it writes is in a file without a name that ends with it.
    pub fn start(&self, seat: Seat, network: &Path) -> Result<Child> {
        // setpriv(1) asks the kernel to kill QEMU when the thread that started it has gone: the runner's main one.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args(self.arguments(seat, network));
        let log = std::fs::File::create(Self::file(seat, "qemu"))?;
        // What differs from the image (tmp of QEMU's snapshot=on).
        command.env("TMPDIR", std::env::current_dir()?);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().context("qemu-system-x86_64 (Debian: qemu-system-x86) cannot be started")
    }

    fn arguments(&self, seat: Seat, network: &Path) -> Vec<String> {
        let number = seat.mac.rsplit(':').next().unwrap_or("00");
        // A soft lockup is told after twice watchdog_thresh: a machine that is emulated beside others stands still at times.
        let append = format!(
            "root=/dev/nvme0n1 rw console=ttyS0 net.ifnames=0 mitigations=off quiet loglevel=4 systemd.show_status=auto \
             watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120 systemd.hostname={} systemd.machine_id={number:0>32}",
            seat.name
        );
        let path = |path: &Path| path.display().to_string();
        let mut arguments = vec!["-name".to_owned(), seat.name.to_owned()];
        arguments.extend(
            "-no-user-config -nodefaults -display none -machine pc -smp 2 -m 1024".split(' ').map(str::to_owned),
        );
        if self.kvm {
            arguments.extend("-accel kvm -cpu host".split(' ').map(str::to_owned));
        } else {
            // Without CMPXCHG16B: some builds of QEMU 7.2 leave garbage in the flags after the one that has no lock prefix, which the
            // kernel's allocator uses (target/i386/tcg/mem_helper.c, helper_cmpxchg16b_unlocked()).
            arguments
                .extend("-accel tcg,thread=multi,tb-size=192 -cpu max,cx16=off,la57=off".split(' ').map(str::to_owned));
        }
        let devices = [
            ("-kernel", path(&self.root.kernel)),
            ("-append", append),
            ("-serial", format!("file:{}", path(&Self::file(seat, "console")))),
            ("-qmp", format!("unix:{},server=on,wait=off", path(&Self::file(seat, "qmp")))),
            ("-chardev", format!("socket,id=agent,path={},server=on,wait=off", path(&Self::file(seat, "agent")))),
            ("-device", "virtio-serial-pci".to_owned()),
            ("-device", format!("virtserialport,chardev=agent,name={}", crate::protocol::PORT)),
            ("-drive", format!("file={},format=raw,if=none,id=root,cache=unsafe,snapshot=on", path(&self.root.image))),
            ("-device", "nvme,serial=root,drive=root".to_owned()),
            ("-drive", format!("file={},format=raw,if=none,id=products,readonly=on", path(&self.products))),
            ("-device", "virtio-blk-pci,drive=products".to_owned()),
            ("-netdev", format!("stream,id=wire,server=off,addr.type=unix,addr.path={}", path(network))),
            ("-device", format!("virtio-net-pci,netdev=wire,romfile=,mac={}", seat.mac)),
            ("-device", "virtio-rng-pci".to_owned()),
        ];
        for (option, value) in devices {
            arguments.extend([option.to_owned(), value]);
        }
        arguments
    }
}
