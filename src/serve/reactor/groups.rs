//! Groups of connections, to which the program broadcasts.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use crate::io::memory::listed;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::types::error::ErrorKind;

type Members = HashSet<(u32, u32)>;

/// The members of each group. The lock is acquired before the lock of an entry.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<HashMap<Arc<str>, Members>>);

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Members>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection to a group. `keep` runs under the lock. It stores the group's name in the
    /// entry, by which the connection leaves the group. If it fails, the group is unchanged.
    pub(super) fn join(
        &self,
        group: &str,
        connection: (u32, u32),
        keep: impl FnOnce(&Arc<str>) -> Result<(), ErrorKind>,
    ) -> Result<(), ErrorKind> {
        let mut groups = self.lock();
        let no_memory = |_| ErrorKind::NoMemory;
        groups.try_reserve(1).map_err(no_memory)?;
        let name = match groups.get_key_value(group) {
            Some((name, _)) => name.clone(),
            None => Arc::from(group),
        };
        if let Some(members) = groups.get_mut(group) {
            members.try_reserve(1).map_err(no_memory)?;
        }
        keep(&name)?;
        groups.entry(name).or_default().insert(connection);
        Ok(())
    }

    /// Removes a connection from the groups that `names` returns. `names` runs under the lock.
    pub(super) fn leave<N: IntoIterator<Item = Arc<str>>>(
        &self,
        connection: (u32, u32),
        names: impl FnOnce() -> N,
    ) {
        let mut groups = self.lock();
        for name in names() {
            if let Some(members) = groups.get_mut(&name) {
                members.remove(&connection);
                if members.is_empty() {
                    groups.remove(&name);
                }
            }
        }
    }

    /// Returns the members of a group, or `None` if there is no memory for the list.
    pub(super) fn members(&self, group: &str) -> Option<Vec<(u32, u32)>> {
        let groups = self.lock();
        groups
            .get(group)
            .map_or(Some(Vec::new()), |members| listed(members.len(), members.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V3: members join and leave; an empty group takes no memory.
    #[test]
    fn leave_removes_members_and_empty_groups() {
        let groups = Groups::default();
        assert_eq!(groups.join("red", (1, 0), |_| Ok(())), Ok(()));
        assert_eq!(groups.join("red", (2, 0), |_| Ok(())), Ok(()));
        let ended = Err(ErrorKind::Closed);
        assert_eq!(groups.join("red", (3, 0), |_| ended), ended);
        let mut members = groups.members("red").unwrap();
        members.sort_unstable();
        assert_eq!(members, [(1, 0), (2, 0)]);
        assert!(groups.members("blue").unwrap().is_empty());
        for index in [1, 2, 3] {
            groups.leave((index, 0), || ["red", "blue"].map(Arc::from));
        }
        assert!(groups.lock().is_empty());
    }
}
