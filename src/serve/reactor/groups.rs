//! Groups of connections, to which the program broadcasts.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Members = HashSet<(u32, u32)>;

/// The members of each group. The lock is acquired before the lock of an entry.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<HashMap<Arc<str>, Members>>);

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Members>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection to a group. `keep` runs under the lock. It stores the group's name in the
    /// entry, by which the connection leaves the group. It returns false if the connection has
    /// ended.
    pub(super) fn join(
        &self,
        group: &str,
        connection: (u32, u32),
        keep: impl FnOnce(&Arc<str>) -> bool,
    ) -> bool {
        let mut groups = self.lock();
        let name =
            groups.get_key_value(group).map_or_else(|| Arc::from(group), |(name, _)| name.clone());
        if !keep(&name) {
            return false;
        }
        groups.entry(name).or_default().insert(connection);
        true
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

    pub(super) fn members(&self, group: &str) -> Vec<(u32, u32)> {
        self.lock().get(group).map_or_else(Vec::new, |members| members.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V3: members join and leave; an empty group takes no memory.
    #[test]
    fn leave_removes_members_and_empty_groups() {
        let groups = Groups::default();
        assert!(groups.join("red", (1, 0), |_| true));
        assert!(groups.join("red", (2, 0), |_| true));
        assert!(!groups.join("red", (3, 0), |_| false));
        let mut members = groups.members("red");
        members.sort_unstable();
        assert_eq!(members, [(1, 0), (2, 0)]);
        assert!(groups.members("blue").is_empty());
        for index in [1, 2, 3] {
            groups.leave((index, 0), || ["red", "blue"].map(Arc::from));
        }
        assert!(groups.lock().is_empty());
    }
}
