//! Finding nats-server and etcd, and refusing versions that would lose data.
//!
//! Nothing is installed here; that is `ops/setup`.

use anyhow::{Context as _, bail};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// Older servers do not fence proposals by leadership term, so that a deposed stream leader can still commit.
const NATS_SERVER_FLOOR: Version = Version([2, 14, 4]);
/// Older ones can revoke leases wrongly after a change of leader; good enough to develop on.
const ETCD_ADVISED: Version = Version([3, 5, 23]);
/// What a server may take to say its version.
const VERSION_BOUND: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub version: Version,
}

#[derive(Clone, Debug)]
pub struct Programs {
    pub nats_server: Program,
    pub etcd: Program,
    /// Of ourselves, for the roles.
    pub outlive: PathBuf,
    /// For whoever starts this.
    pub warnings: Vec<String>,
}

/// Finds the servers: the environment says which, else the first on `PATH` that is new enough, else what `ops/setup`
/// put beside the sources.
pub async fn find() -> anyhow::Result<Programs> {
    let outlive = own_path()?;
    let nats_server = find_one(Wanted {
        name: "nats-server",
        variable: "OUTLIVE_NATS_SERVER",
        version_prefix: "nats-server: v",
        floor: NATS_SERVER_FLOOR,
    });
    let etcd = find_one(Wanted {
        name: "etcd",
        variable: "OUTLIVE_ETCD",
        version_prefix: "etcd Version: ",
        floor: Version([3, 4, 0]),
    });
    let (nats_server, etcd) = tokio::try_join!(nats_server, etcd)?;
    let mut warnings = Vec::new();
    if etcd.version < ETCD_ADVISED {
        warnings.push(format!(
            "etcd is {}: good enough here, but take {ETCD_ADVISED} or newer where it matters, for older ones can \
             revoke leases wrongly",
            etcd.version
        ));
    }
    Ok(Programs { nats_server, etcd, outlive, warnings })
}

struct Wanted {
    name: &'static str,
    variable: &'static str,
    version_prefix: &'static str,
    floor: Version,
}

async fn find_one(wanted: Wanted) -> anyhow::Result<Program> {
    let Wanted { name, variable, floor, .. } = wanted;
    if let Some(named) = std::env::var_os(variable).filter(|v| !v.is_empty()) {
        let path = PathBuf::from(named);
        let version = version_of(&path, wanted.version_prefix).await.with_context(|| format!("{variable} names it"))?;
        if version < floor {
            bail!("{variable} names {}, version {version}; {name} {floor} or newer is needed", path.display());
        }
        return Ok(Program { path, version });
    }
    let mut refused = Vec::new();
    for path in candidates(name) {
        match version_of(&path, wanted.version_prefix).await {
            Ok(version) if version >= floor => return Ok(Program { path, version }),
            Ok(version) => refused.push(format!("{} is {version}", path.display())),
            Err(error) => refused.push(format!("{error:#}")),
        }
    }
    let found = if refused.is_empty() { "there is none on PATH".to_owned() } else { refused.join("; ") };
    bail!("{name} {floor} or newer is needed, and {found}: run ops/setup, or set {variable} to one")
}

/// On `PATH`, then in `.tools/bin` of the sources that this program was built from, if it was built there.
fn candidates(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    let own = std::env::current_exe().unwrap_or_default();
    let in_tools = own.ancestors().skip(1).map(|folder| folder.join(".tools/bin").join(name)).collect::<Vec<_>>();
    let mut found: Vec<PathBuf> = on_path.chain(in_tools).filter(|path| path.is_file()).collect();
    found.dedup();
    found
}

async fn version_of(path: &Path, prefix: &str) -> anyhow::Result<Version> {
    let shown = path.display();
    let asked = Command::new(path).arg("--version").kill_on_drop(true).output();
    let answer = tokio::time::timeout(VERSION_BOUND, asked)
        .await
        .with_context(|| format!("{shown} --version did not end within {} s", VERSION_BOUND.as_secs()))?
        .with_context(|| format!("{shown} does not run"))?;
    let text = String::from_utf8_lossy(&answer.stdout);
    text.lines()
        .find_map(|line| Version::parse(line.trim().strip_prefix(prefix)?))
        .with_context(|| format!("{shown} --version says no version after `{prefix}`"))
}

/// Where this program is. A build may have replaced the file since; Linux still knows the one that runs.
fn own_path() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("finding the path of this program")?;
    Ok(if path.is_file() { path } else { PathBuf::from("/proc/self/exe") })
}

impl Version {
    /// `2.15.1`, `2.15.1-RC.1`: what follows the third number is left out.
    fn parse(text: &str) -> Option<Version> {
        let mut numbers = text.trim().splitn(3, '.');
        let (major, minor, rest) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let patch = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Version([major.parse().ok()?, minor.parse().ok()?, patch.parse().ok()?]))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        assert_eq!(Version::parse("2.15.1"), Some(Version([2, 15, 1])));
        assert_eq!(Version::parse("2.14.10-RC.2"), Some(Version([2, 14, 10])));
        assert!(Version::parse("2.14.10").expect("version") > NATS_SERVER_FLOOR);
        assert!(Version::parse("2.9.10").expect("version") < NATS_SERVER_FLOOR);
        for text in ["", "2", "2.14", "two.14.4", "2.14.x"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_program_without_a_version_is_named() {
        let error = version_of(Path::new("/bin/true"), "etcd Version: ").await.expect_err("no version");
        assert!(error.to_string().contains("/bin/true --version says no version"), "{error:#}");
        let error = version_of(Path::new("/nowhere/etcd"), "").await.expect_err("no program");
        assert!(format!("{error:#}").contains("/nowhere/etcd does not run"), "{error:#}");
    }
}
