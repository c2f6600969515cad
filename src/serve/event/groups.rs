//! Groups that connections join, to be sent to together.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Members = HashSet<(u32, u32)>;

/// Its lock is taken before that of a connection.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<HashMap<Arc<str>, Members>>);

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Members>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection; `may` is asked under the lock, with the group's name, whether it is
    /// still to be, and keeps the name, by which it leaves.
    pub(super) fn join(
        &self,
        group: &str,
        connection: (u32, u32),
        may: impl FnOnce(&Arc<str>) -> bool,
    ) -> bool {
        let mut groups = self.lock();
        let name =
            groups.get_key_value(group).map_or_else(|| Arc::from(group), |(name, _)| name.clone());
        if !may(&name) {
            return false;
        }
        groups.entry(name).or_default().insert(connection);
        true
    }

    /// Takes a connection out of the groups that `which` names, which is asked under the lock.
    pub(super) fn leave(&self, connection: (u32, u32), which: impl FnOnce() -> Vec<Arc<str>>) {
        let mut groups = self.lock();
        for name in which() {
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

    /// V3: members come and go; an empty group takes no room.
    #[test]
    fn joining_and_leaving() {
        let groups = Groups::default();
        assert!(groups.join("red", (1, 0), |_| true));
        assert!(groups.join("red", (2, 0), |_| true));
        assert!(!groups.join("red", (3, 0), |_| false));
        let mut members = groups.members("red");
        members.sort_unstable();
        assert_eq!(members, [(1, 0), (2, 0)]);
        assert!(groups.members("blue").is_empty());
        for index in [1, 2, 3] {
            groups.leave((index, 0), || vec!["red".into(), "blue".into()]);
        }
        assert!(groups.lock().is_empty());
    }
}
