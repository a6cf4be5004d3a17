//! How many jobs there are of each status.
//!
//! Every event of a job counts one status down and another up, so this is an array; it reads like a map.

use outlive_schemas::view::Status;
use std::ops::Index;

static STATUSES: [Status; Status::ALL.len()] = Status::ALL;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Status::ALL.len()]);

impl Counts {
    /// Nothing where there is none.
    pub fn get(&self, status: &Status) -> Option<&u64> {
        Some(&self[status]).filter(|count| **count > 0)
    }

    /// Of each status that some job has.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Status, &u64)> {
        STATUSES.iter().zip(&self.0).filter(|(_, count)| **count > 0)
    }

    pub fn keys(&self) -> impl Iterator<Item = &'static Status> {
        self.iter().map(|(status, _)| status)
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn up(&mut self, status: Status) {
        self.0[status as usize] += 1;
    }

    pub(crate) fn down(&mut self, status: Status) {
        self.0[status as usize] -= 1;
    }
}

impl Index<&Status> for Counts {
    type Output = u64;
    fn index(&self, status: &Status) -> &u64 {
        &self.0[*status as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_counted_by_itself() {
        let mut counts = Counts::default();
        for status in Status::ALL {
            assert!(counts.is_empty());
            counts.up(status);
            counts.up(status);
            assert_eq!((counts.get(&status), counts[&status]), (Some(&2), 2));
            assert_eq!(counts.iter().collect::<Vec<_>>(), [(&status, &2)]);
            counts.down(status);
            counts.down(status);
            assert_eq!(counts.get(&status), None);
        }
    }
}
