//! Who listens on a port, so that an error about a taken one can name the culprit. Linux only; elsewhere it says how to
//! find out.

use std::fs;
use std::path::Path;

/// A description of the process that listens on a local TCP port: `nats-server (process 4711)`.
pub fn who_listens(port: u16) -> String {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    owner(&inodes).unwrap_or_else(|| format!("another process (find it with: ss -ltnp 'sport = :{port}')"))
}

/// The socket inodes of a `/proc/net/tcp` table that listen on the port.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let local_suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            (local.ends_with(&local_suffix) && *state == LISTEN).then(|| (*inode).to_owned())
        })
        .collect()
}

fn owner(inodes: &[String]) -> Option<String> {
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok).map(|entry| entry.path());
    processes.filter(|process| holds(process, &links)).find_map(|process| {
        let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
        let name = fs::read_to_string(process.join("comm")).ok()?;
        Some(format!("{} (process {pid})", name.trim()))
    })
}

fn holds(process: &Path, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0
   3: cut off";

    #[test]
    fn only_listeners_on_the_port_count() {
        assert_eq!(listening_inodes(TABLE, 8080), ["111"]);
        assert_eq!(listening_inodes(TABLE, 8081), ["333"]);
        assert_eq!(listening_inodes(TABLE, 80), Vec::<String>::new());
    }
}
