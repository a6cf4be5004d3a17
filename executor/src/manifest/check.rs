//! What a manifest may say. Read as an enemy's: nothing in it may touch anything outside the directory it is restored
//! into, or leave something behind that is more than files.

use std::collections::HashMap;

use outlive_schemas::limits::PATH_BYTES_MAX;

use super::{Entry, Extent, ManifestError, Node, shown};
use crate::chunk::CONTENT;

/// Permission bits that are kept: read, write, execute and sticky.
pub const MODE_BITS: u32 = 0o1777;
/// Set-user-id and set-group-id.
pub const SET_ID_BITS: u32 = 0o6000;

/// As many symbolic links as Linux follows in one path.
const LINKS_FOLLOWED_MAX: usize = 40;

/// What is wrong with one entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the path is empty")]
    Empty,
    #[error("the path is absolute and so leaves the state directory")]
    Absolute,
    #[error("the path has a component `..` and so may leave the state directory")]
    DotDot,
    #[error("the path has an empty component, or one that is `.`")]
    EmptyComponent,
    #[error("the path has a zero byte")]
    Nul,
    #[error("the path has {bytes} bytes, and it must be less than {PATH_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("the path comes twice, or not in order")]
    Order,
    #[error("the path lies in something that is not a directory of the checkpoint")]
    Parent,
    #[error("it is set-user-id or set-group-id (mode {mode:o})")]
    SetId { mode: u32 },
    #[error("the mode {mode:o} has bits that no checkpoint has")]
    Mode { mode: u32 },
    #[error("its time is not one")]
    Time,
    #[error("the symbolic link's target is empty, has a zero byte or is too long")]
    Target,
    #[error("the symbolic link leads out of the state directory, to `{target}`")]
    LinkLeaves { target: String },
    #[error("its stretches have {actual} bytes together, and it is said to have {size}")]
    Size { size: u64, actual: u64 },
    #[error("a chunk of it is said to have {bytes} bytes, and {max} are the most", max = CONTENT.max)]
    Chunk { bytes: usize },
}

/// Checks a whole manifest. Entries come sorted by their components, so that each directory comes before what is in it,
/// and nothing comes twice.
pub fn check(entries: &[Entry]) -> Result<(), ManifestError> {
    // The directories that the entry at hand may lie in: the last one and those it lies in.
    let mut inside: Vec<&[u8]> = Vec::new();
    let mut previous: Option<&[u8]> = None;
    for entry in entries {
        let fault = |fault| ManifestError::Entry { path: shown(&entry.path), fault };
        check_entry(entry).map_err(fault)?;
        let path = entry.path.as_slice();
        if previous.is_some_and(|previous| components(previous).ge(components(path))) {
            return Err(fault(Fault::Order));
        }
        previous = Some(path);
        let parent = parent(path);
        while inside.last().is_some_and(|last| Some(*last) != parent) {
            inside.pop();
        }
        if inside.last().copied() != parent {
            return Err(fault(Fault::Parent));
        }
        if entry.node == Node::Directory {
            inside.push(path);
        }
    }
    match leaving_link(entries.iter().filter_map(link)) {
        None => Ok(()),
        Some((path, target)) => {
            Err(ManifestError::Entry { path: shown(path), fault: Fault::LinkLeaves { target: shown(target) } })
        }
    }
}

/// A symbolic link of `links` (path, target) that leads out of the directory, if any does: by itself, or by way of
/// others. `..` goes up from where the links before it lead, as it does for the kernel.
pub fn leaving_link<'a>(links: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<(&'a [u8], &'a [u8])> {
    let links: HashMap<&[u8], &[u8]> = links.collect();
    let mut leaving: Vec<_> = links.iter().filter(|(path, target)| !stays_inside(path, target, &links)).collect();
    leaving.sort();
    leaving.first().map(|(path, target)| (**path, **target))
}

fn stays_inside(path: &[u8], target: &[u8], links: &HashMap<&[u8], &[u8]>) -> bool {
    if target.starts_with(b"/") {
        return false;
    }
    // Where we are, and what is still to be walked, its next component last.
    let mut here: Vec<u8> = parent(path).unwrap_or_default().to_vec();
    let mut ahead: Vec<&[u8]> = components(target).rev().collect();
    let mut followed = 0;
    while let Some(component) = ahead.pop() {
        match component {
            b"" | b"." => {}
            b".." if here.is_empty() => return false,
            b".." => here.truncate(parent(&here).map_or(0, <[u8]>::len)),
            name => {
                let length = here.len();
                if length > 0 {
                    here.push(b'/');
                }
                here.extend_from_slice(name);
                if let Some(next) = links.get(here.as_slice()) {
                    followed += 1;
                    if next.starts_with(b"/") {
                        return false;
                    }
                    // Nobody can follow this one, so it leads nowhere.
                    if followed > LINKS_FOLLOWED_MAX {
                        return true;
                    }
                    here.truncate(length);
                    ahead.extend(components(next).rev());
                }
            }
        }
    }
    true
}

fn check_entry(entry: &Entry) -> Result<(), Fault> {
    check_path(&entry.path)?;
    if entry.mode & SET_ID_BITS != 0 {
        return Err(Fault::SetId { mode: entry.mode });
    }
    if entry.mode & !MODE_BITS != 0 {
        return Err(Fault::Mode { mode: entry.mode });
    }
    if entry.modified.1 >= 1_000_000_000 {
        return Err(Fault::Time);
    }
    match &entry.node {
        Node::Directory | Node::Fifo => Ok(()),
        Node::Symlink { target } => {
            let sound = !target.is_empty() && target.len() < PATH_BYTES_MAX && !target.contains(&0);
            if sound { Ok(()) } else { Err(Fault::Target) }
        }
        Node::File { size, extents } => {
            let mut actual = 0_u64;
            for extent in extents.iter() {
                if let Extent::Chunk(chunk) = extent
                    && chunk.bytes() > CONTENT.max
                {
                    return Err(Fault::Chunk { bytes: chunk.bytes() });
                }
                actual = actual.saturating_add(extent.bytes());
            }
            if actual == *size && i64::try_from(actual).is_ok() {
                Ok(())
            } else {
                Err(Fault::Size { size: *size, actual })
            }
        }
    }
}

fn check_path(path: &[u8]) -> Result<(), Fault> {
    if path.is_empty() {
        return Err(Fault::Empty);
    }
    if path.len() >= PATH_BYTES_MAX {
        return Err(Fault::TooLong { bytes: path.len() });
    }
    if path.contains(&0) {
        return Err(Fault::Nul);
    }
    if path.starts_with(b"/") {
        return Err(Fault::Absolute);
    }
    components(path).try_for_each(|component| match component {
        b".." => Err(Fault::DotDot),
        b"" | b"." => Err(Fault::EmptyComponent),
        _ => Ok(()),
    })
}

fn link(entry: &Entry) -> Option<(&[u8], &[u8])> {
    match &entry.node {
        Node::Symlink { target } => Some((&entry.path, target)),
        _ => None,
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    path.iter().rposition(|byte| *byte == b'/').map(|slash| &path[..slash])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ChunkRef;
    use crate::manifest::{self, FileTime};
    use outlive_schemas::checkpoint::BlobName;

    fn entry(path: &str, node: Node) -> Entry {
        let mode = if matches!(node, Node::Symlink { .. }) { 0 } else { 0o644 };
        Entry { path: path.into(), mode, modified: FileTime(1, 2), node }
    }

    fn directory(path: &str) -> Entry {
        entry(path, Node::Directory)
    }

    fn symlink(path: &str, target: &str) -> Entry {
        entry(path, Node::Symlink { target: target.into() })
    }

    fn file(path: &str, size: u64, extents: Vec<Extent>) -> Entry {
        entry(path, Node::File { size, extents: extents.into() })
    }

    fn empty(path: &str) -> Entry {
        file(path, 0, vec![])
    }

    /// Through the bytes, as a manifest comes.
    fn read(entries: &[Entry]) -> Result<Vec<Entry>, ManifestError> {
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| manifest::append(entry, &mut bytes));
        manifest::read(&bytes)
    }

    fn fault(entries: &[Entry]) -> Fault {
        match read(entries) {
            Err(ManifestError::Entry { fault, .. }) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_honest_manifest_is_taken_as_it_is() {
        let chunk = ChunkRef(BlobName([7; 32]), 100_000);
        let entries = [
            directory("a"),
            directory("a/b"),
            file("a/b/c", 100_007, vec![Extent::Chunk(chunk), Extent::Inline(b"abc".to_vec()), Extent::Hole(4)]),
            symlink("a/b/up", "../../a"),
            // By bytes alone this would come before `a/b`.
            empty("a.txt"),
            symlink("b", "a/b/up/b/../.."),
            symlink("dangling", "nowhere/at/all"),
            entry("p", Node::Fifo),
        ];
        assert_eq!(read(&entries).expect("honest"), entries);
        assert_eq!(read(&[]).expect("an empty state"), []);
    }

    #[test]
    fn hostile_paths_are_refused() {
        for (path, expected) in [
            ("", Fault::Empty),
            ("/etc/passwd", Fault::Absolute),
            ("..", Fault::DotDot),
            ("../x", Fault::DotDot),
            ("a/../../x", Fault::DotDot),
            (".", Fault::EmptyComponent),
            ("a//b", Fault::EmptyComponent),
            ("a/", Fault::EmptyComponent),
            ("a/./b", Fault::EmptyComponent),
            ("a\0b", Fault::Nul),
            (&"x".repeat(PATH_BYTES_MAX), Fault::TooLong { bytes: PATH_BYTES_MAX }),
        ] {
            assert_eq!(
                fault(&[directory("a"), empty(path)][usize::from(!path.starts_with("a/"))..]),
                expected,
                "{path:?}"
            );
        }
    }

    #[test]
    fn every_entry_has_its_place() {
        assert_eq!(fault(&[empty("a"), empty("a")]), Fault::Order);
        assert_eq!(fault(&[empty("b"), empty("a")]), Fault::Order);
        assert_eq!(fault(&[directory("a"), empty("a.txt"), empty("a/b")]), Fault::Order);
        assert_eq!(fault(&[empty("a/b")]), Fault::Parent);
        assert_eq!(fault(&[empty("a"), empty("a/b")]), Fault::Parent, "below a file");
        assert_eq!(fault(&[symlink("a", "."), empty("a/b")]), Fault::Parent, "through a link");
        assert_eq!(fault(&[directory("a"), empty("ab/c")]), Fault::Parent);
    }

    #[test]
    fn links_do_not_lead_out() {
        let leaves = |entries: &[Entry], path: &str| match read(entries) {
            Err(ManifestError::Entry { path: found, fault: Fault::LinkLeaves { .. } }) => assert_eq!(found, path),
            other => panic!("{other:?}"),
        };
        leaves(&[symlink("a", "/etc/passwd")], "a");
        leaves(&[symlink("a", "..")], "a");
        leaves(&[directory("d"), symlink("d/a", "../../x")], "d/a");
        leaves(&[directory("d"), symlink("d/a", "./x/../../..")], "d/a");
        // Each looks harmless; one by way of the other is not.
        leaves(&[directory("d"), directory("d/e"), symlink("d/e/root", "../.."), symlink("z", "d/e/root/..")], "z");
        // A circle leads nowhere.
        assert!(read(&[symlink("a", "b"), symlink("b", "a")]).is_ok());
        for target in ["", "x\0y", &"x/".repeat(PATH_BYTES_MAX)] {
            assert_eq!(fault(&[symlink("a", target)]), Fault::Target);
        }
    }

    #[test]
    fn modes_times_and_sizes_are_sound() {
        let mode = |mode| fault(&[Entry { mode, ..empty("a") }]);
        assert_eq!(mode(0o4755), Fault::SetId { mode: 0o4755 });
        assert_eq!(mode(0o2755), Fault::SetId { mode: 0o2755 });
        assert_eq!(mode(0o100_644), Fault::Mode { mode: 0o100_644 });
        assert_eq!(fault(&[Entry { mode: 0o2700, ..directory("a") }]), Fault::SetId { mode: 0o2700 });
        assert_eq!(fault(&[Entry { modified: FileTime(0, 1_000_000_000), ..empty("a") }]), Fault::Time);
        assert_eq!(fault(&[file("a", 5, vec![Extent::Hole(4)])]), Fault::Size { size: 5, actual: 4 });
        let endless = vec![Extent::Hole(u64::MAX), Extent::Hole(2)];
        assert_eq!(fault(&[file("a", u64::MAX, endless)]), Fault::Size { size: u64::MAX, actual: u64::MAX });
        let huge = ChunkRef(BlobName([0; 32]), u32::MAX);
        assert_eq!(
            fault(&[file("a", huge.bytes() as u64, vec![Extent::Chunk(huge)])]),
            Fault::Chunk { bytes: huge.bytes() }
        );
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let mut bytes = Vec::new();
        manifest::append(&empty("a"), &mut bytes);
        assert!(manifest::read(&bytes).is_ok());
        for broken in [&bytes[..bytes.len() - 1], b"\xc1", b"\x94\xc6\xff\xff\xff\xff", b"\x01"] {
            assert!(matches!(manifest::read(broken), Err(ManifestError::Undecodable { .. })), "{broken:?}");
        }
        // A device, as an attacker would spell one.
        let device = rmp_serde::to_vec(&(serde_bytes::Bytes::new(b"a"), 0o644, FileTime(0, 0), "b")).expect("packs");
        assert!(matches!(manifest::read(&device), Err(ManifestError::Undecodable { .. })));
    }

    #[test]
    fn roots_are_read_by_their_format_first() {
        let root = manifest::Root::new(1, vec![1, 2, 3]);
        assert_eq!(manifest::read_root(&manifest::pack_root(&root)).expect("ours"), root);
        let newer = rmp_serde::to_vec(&(2, "another", [1, 2, 3])).expect("packs");
        assert!(matches!(manifest::read_root(&newer), Err(ManifestError::Format { given: 2 })));
        let deep = manifest::Root { levels: 99, ..root };
        assert!(matches!(manifest::read_root(&manifest::pack_root(&deep)), Err(ManifestError::Levels { given: 99 })));
        assert!(matches!(manifest::read_root(b""), Err(ManifestError::Undecodable { .. })));
        let many = manifest::pack_chunks(&[ChunkRef(BlobName([1; 32]), 1 << 20)]);
        assert!(matches!(manifest::read_chunks(&many, 1 << 10), Err(ManifestError::TooLarge { .. })));
    }
}
