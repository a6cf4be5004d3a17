//! Hosts on one machine, each a network namespace with an address of its own, whose cables can be pulled.
//!
//! A pulled cable is a real partition: nothing is refused and nothing is closed, it is only silent.

use outlive_schemas::time::Timestamp;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A network that is taken down when this is dropped.
#[derive(Debug)]
pub struct Network {
    tag: String,
    hosts: Vec<Host>,
}

#[derive(Clone, Debug)]
pub struct Host {
    pub name: String,
    pub address: String,
    namespace: String,
    cable: String,
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// With the time, to be read beside the logs of those it happens to.
fn tell(host: &str, what: &str) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    eprintln!("{} {host} {what}", Timestamp(u64::try_from(now.as_millis()).unwrap_or_default()));
}

impl Network {
    /// Errors: why this machine does not permit it: no iproute2, or no right to make namespaces.
    pub fn of(names: &[&str]) -> Result<Network, String> {
        let id = std::process::id();
        // A network of this process alone, from what is set aside for trying out networks (RFC 2544).
        let subnet = format!("198.{}.{}", 18 + (id / 256) % 2, id % 256);
        let tag = format!("ol{id:x}");
        let mut network = Network { tag: tag.clone(), hosts: Vec::new() };
        // The switch is in a namespace of its own: what this machine's firewall forbids to forward does not bind it.
        let (switch, uplink) = (network.switch(), format!("{tag}u"));
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "switch", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "switch", "up"])?;
        ip(&["link", "add", &tag, "type", "veth", "peer", "name", &uplink, "netns", &switch])?;
        ip(&["addr", "add", &format!("{subnet}.254/24"), "dev", &tag])?;
        ip(&["link", "set", &tag, "up"])?;
        ip(&["-n", &switch, "link", "set", &uplink, "master", "switch"])?;
        ip(&["-n", &switch, "link", "set", &uplink, "up"])?;
        for (number, name) in names.iter().enumerate() {
            let host = Host {
                name: (*name).to_owned(),
                address: format!("{subnet}.{}", number + 1),
                namespace: format!("{tag}-{name}"),
                cable: format!("{tag}c{number}"),
            };
            let (cable, inside) = (host.cable.as_str(), format!("{tag}i{number}"));
            let namespace = host.namespace.as_str();
            ip(&["netns", "add", namespace])?;
            network.hosts.push(host.clone());
            ip(&["-n", &switch, "link", "add", cable, "type", "veth", "peer", "name", &inside, "netns", namespace])?;
            ip(&["-n", &switch, "link", "set", cable, "master", "switch"])?;
            ip(&["-n", &switch, "link", "set", cable, "up"])?;
            ip(&["-n", namespace, "addr", "add", &format!("{}/24", host.address), "dev", &inside])?;
            ip(&["-n", namespace, "link", "set", &inside, "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.tag)
    }

    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap_or_else(|| panic!("there is no host {name}"))
    }

    /// Pulls a host's cable.
    pub fn cut(&self, name: &str) {
        ip(&["-n", &self.switch(), "link", "set", &self.host(name).cable, "down"])
            .unwrap_or_else(|why| panic!("{why}"));
        tell(name, "is cut off");
    }

    /// Plugs it in again.
    pub fn mend(&self, name: &str) {
        ip(&["-n", &self.switch(), "link", "set", &self.host(name).cable, "up"]).unwrap_or_else(|why| panic!("{why}"));
        tell(name, "is back");
    }

    /// Starts a program on a host. The child is the program itself.
    pub fn start(&self, host: &str, program: &Path, args: &[String], log: &Path) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log can be opened");
        let errors = log.try_clone().expect("a file can be had twice");
        Command::new("ip")
            .args(["netns", "exec", &self.host(host).namespace])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started on {host}: {error}", program.display()))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            // Its end of the cable goes with it.
            drop(ip(&["netns", "del", &host.namespace]));
        }
        drop(ip(&["netns", "del", &self.switch()]));
        drop(ip(&["link", "del", &self.tag]));
    }
}
