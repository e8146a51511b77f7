//! How the system gives this process its turns.

use serde::Deserialize;

/// Which turns the threads of a node ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduling {
    /// Those of a program that does much rather than soon (Linux's `SCHED_BATCH`): a thread that is woken does not
    /// interrupt the one that runs, so that it finds more to do when its turn comes.
    Batch,
    /// Those that the process was started with.
    #[default]
    Inherit,
}

/// Asks the system for the turns of this thread, and of the threads that it starts from here on.
///
/// An operator who has given the process another policy or another niceness knows better, and keeps them. The binary
/// does so at its start; a program that embeds a node decides for itself.
pub fn schedule(scheduling: Scheduling) {
    match scheduling {
        #[cfg(target_os = "linux")]
        Scheduling::Batch => linux::ask_for_batches(),
        #[cfg(not(target_os = "linux"))]
        Scheduling::Batch => {}
        Scheduling::Inherit => {}
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::process::getpriority_process;
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
    };
    use tracing::debug;

    const OTHER: ThreadSchedulePolicy =
        ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    const BATCH: ThreadSchedulePolicy =
        ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);

    pub(super) fn ask_for_batches() {
        let is_default =
            thread_schedule_policy() == Ok(OTHER) && getpriority_process(None) == Ok(0);
        if !is_default {
            debug!("the scheduling is the operator's");
            return;
        }
        // The niceness that it has.
        let priority = ThreadPriority::Os(Default::default());
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), priority, BATCH) {
            // Such as a container that forbids it: everything works as well, for more CPU.
            debug!(?error, "threads are not scheduled in batches");
        }
    }

    #[cfg(test)]
    mod tests {
        use std::{fs, thread};

        use super::super::{Scheduling, schedule};
        use super::*;

        const SCHED_OTHER: u32 = 0;
        const SCHED_BATCH: u32 = 3;
        const SCHED_IDLE: u32 = 5;

        /// Of this thread, as the kernel has it (proc_pid_stat(5), field 41): the C library tells what it believes.
        fn policy() -> u32 {
            let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The fields from the third on follow the name, which may have spaces.
            let (_name, fields) = stat.rsplit_once(") ").unwrap();
            fields.split(' ').nth(41 - 3).unwrap().parse().unwrap()
        }

        /// Of a thread that is started by one that has asked for `scheduling`.
        fn policy_after(scheduling: Scheduling) -> u32 {
            let parent = thread::spawn(move || {
                schedule(scheduling);
                thread::spawn(policy).join().unwrap()
            });
            parent.join().unwrap()
        }

        #[test]
        fn threads_inherit_what_was_asked_for() {
            let own = policy();
            assert_eq!(policy_after(Scheduling::Inherit), own);
            let is_default = own == SCHED_OTHER && getpriority_process(None) == Ok(0);
            let expected = if is_default { SCHED_BATCH } else { own };
            assert_eq!(policy_after(Scheduling::Batch), expected);
        }

        #[test]
        fn what_the_operator_chose_is_kept() {
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            let kept = thread::spawn(move || {
                // It sets the niceness to 0 as well, which a test under `nice` may not.
                let _ = set_thread_priority_and_policy(
                    thread_native_id(),
                    ThreadPriority::Os(Default::default()),
                    idle,
                );
                schedule(Scheduling::Batch);
                policy()
            });
            assert_eq!(kept.join().unwrap(), SCHED_IDLE);
        }
    }
}
