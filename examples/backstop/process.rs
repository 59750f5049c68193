//! Keeps this process' memory, in which secrets are, to itself.

/// Forbids dumps of the memory, and to processes of the same user to look into it. Where the system doesn't let this be
/// set the command goes on: a backup is worth more.
pub(crate) fn protect() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap_or_default();
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).unwrap_or_default();
}
