//! A private ssh server on loopback, to compare with.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const PORT: u16 = 2299;

pub struct Server {
    directory: PathBuf,
    daemon: Child,
}

impl Server {
    /// # Errors
    /// No sshd or ssh-keygen is installed, or it does not start.
    pub fn start() -> Result<Server> {
        let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|p| Path::new(p).exists());
        let sshd = sshd.context("no sshd is installed")?;
        let directory = std::env::temp_dir().join(format!("bench-ssh-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        for key in ["host", "user"] {
            let status = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(directory.join(key))
                .status()
                .context("ssh-keygen")?;
            ensure!(status.success(), "ssh-keygen: {status}");
        }
        fs::copy(directory.join("user.pub"), directory.join("authorized"))?;
        // sshd wants this directory for its unprivileged half.
        fs::create_dir_all("/run/sshd")?;
        let at = directory.display();
        let options = [
            format!("Port={PORT}"),
            "ListenAddress=127.0.0.1".to_owned(),
            format!("HostKey={at}/host"),
            format!("AuthorizedKeysFile={at}/authorized"),
            "StrictModes=no".to_owned(),
            "UsePAM=no".to_owned(),
            "PermitRootLogin=yes".to_owned(),
            format!("PidFile={at}/pid"),
        ];
        let daemon = Command::new(sshd)
            .args(["-D", "-f", "/dev/null"])
            .args(options.iter().flat_map(|o| ["-o", o.as_str()]))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("sshd")?;
        let server = Server { directory, daemon };
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            ensure!(Instant::now() < deadline, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let status = server.command(false).arg("true").stdin(Stdio::null()).status()?;
        ensure!(status.success(), "ssh to the private sshd: {status}");
        Ok(server)
    }

    /// `ssh HOST`, over the open master connection or anew.
    pub fn command(&self, over_master: bool) -> Command {
        let at = self.directory.display();
        let mut command = Command::new("ssh");
        command.args(["-q", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-i", &format!("{at}/user"), "-p", &PORT.to_string()]);
        if over_master {
            command.args(["-S", &format!("{at}/master")]);
        }
        command.arg("root@127.0.0.1");
        command
    }

    /// # Errors
    /// ssh cannot connect.
    pub fn open_master(&self) -> Result<()> {
        let mut command = self.command(true);
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = Command::new("ssh");
        let status = command.args(["-M", "-N", "-f"]).args(arguments).stdin(Stdio::null()).status()?;
        ensure!(status.success(), "ssh -M: {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.command(true).args(["-O", "exit"]).stderr(Stdio::null()).status();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
