//! What can be seen of a file without reading it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is written twice within so long may have one time of modification: some file systems count in seconds, some in two.
const COARSEST: Duration = Duration::from_secs(3);

/// A file as it was. Whose contents or permissions change, whatever replaces it, has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the epoch.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: the path leads to nothing that can be looked at.
    pub fn of(path: &Path) -> Option<Stamp> {
        fs::metadata(path).ok().as_ref().map(Stamp::from)
    }

    /// Whether a change from `now` on gives another stamp.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let Ok(now) = now.duration_since(UNIX_EPOCH) else { return false };
        let last = u64::try_from(self.modified.0.max(self.changed.0)).unwrap_or(0);
        Duration::from_secs(last).saturating_add(COARSEST) <= now
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::*;

    #[test]
    fn permissions_are_part_of_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = Stamp::of(file.path()).unwrap();
        // The clock of a file system may stand still for some milliseconds.
        let deadline = Instant::now() + Duration::from_secs(30);
        while Stamp::of(file.path()) == Some(before) {
            assert!(Instant::now() < deadline, "a change of permissions is not seen");
            fs::set_permissions(file.path(), Permissions::from_mode(0o600)).unwrap();
        }
    }

    #[test]
    fn what_is_younger_than_clocks_are_fine_is_not_settled() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = Stamp::of(file.path()).unwrap();
        let now = SystemTime::now();
        assert!(!stamp.is_settled(now));
        assert!(!stamp.is_settled(UNIX_EPOCH - COARSEST));
        assert!(stamp.is_settled(now + COARSEST + Duration::from_secs(1)));
    }
}
