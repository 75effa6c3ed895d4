//! A private ssh server on node 0, reached over the same network as the node itself, to compare with.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const PORT: u16 = 2299;
/// On the node: a directory of its own.
const THERE: &str = "/dev/shm/bench-ssh";

pub struct Server {
    directory: PathBuf,
    address: String,
    /// bpsh, which runs sshd on the node: when it ends, so does sshd.
    daemon: Child,
}

impl Server {
    /// # Errors
    /// No sshd or ssh-keygen is installed, or it does not start.
    pub fn start() -> Result<Server> {
        let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|p| Path::new(p).exists());
        let sshd = sshd.context("no sshd is installed")?;
        let address = output(Command::new("bpstat").args(["-a", "0"]))?;
        let address = address.split_whitespace().last().context("node 0 has no address")?.to_owned();
        let directory = std::env::temp_dir().join(format!("bench-ssh-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        // The host key and the directory for sshd's unprivileged half are made on the node.
        let prepare = format!(
            "mkdir -p {THERE} /run/sshd && cd {THERE} && ssh-keygen -q -t ed25519 -N '' -f host && \
             ssh-keygen -q -t ed25519 -N '' -f user && cp user.pub authorized && cat user"
        );
        let key = directory.join("user");
        fs::write(&key, output(Command::new("bpsh").args(["-n", "0", "sh", "-c", &prepare]))?)?;
        ensure!(Command::new("chmod").arg("600").arg(&key).status()?.success(), "chmod");
        let options = [
            format!("Port={PORT}"),
            format!("HostKey={THERE}/host"),
            format!("AuthorizedKeysFile={THERE}/authorized"),
            "StrictModes=no".to_owned(),
            "UsePAM=no".to_owned(),
            "PermitRootLogin=yes".to_owned(),
            "PidFile=none".to_owned(),
            // What scp asks for.
            "Subsystem=sftp internal-sftp".to_owned(),
        ];
        let daemon = Command::new("bpsh")
            .args(["-n", "0", sshd, "-D", "-f", "/dev/null"])
            .args(options.iter().flat_map(|o| ["-o", o.as_str()]))
            .stderr(Stdio::null())
            .spawn()
            .context("sshd")?;
        let server = Server { directory, address, daemon };
        let to: SocketAddr = format!("{}:{PORT}", server.address).parse()?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(to).is_err() {
            ensure!(Instant::now() < deadline, "sshd does not listen on {to}");
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
        command.arg(format!("root@{}", self.address));
        command
    }

    /// `scp FILE HOST:TARGET`.
    pub fn copy(&self, file: &str, target: &str) -> Command {
        let mut command = Command::new("scp");
        command.args(["-q", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-i", &format!("{}/user", self.directory.display()), "-P", &PORT.to_string()]);
        command.args([file, &format!("root@{}:{target}", self.address)]);
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

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
