//! Functions that the program has posted, and the timers of the service.

use std::mem;
use std::sync::PoisonError;

use super::super::loop_shared::CMD_POST;
use super::super::tasks::take;
use super::Loop;
use crate::io::panic_guard::panics;
use crate::log;

/// The maximum number of functions that are called before other events are handled, for each
/// connection and for the service.
const ROUND: usize = 64;

impl<'a> Loop<'a> {
    /// Calls the functions that were posted to a connection. Functions that are posted in the
    /// meantime follow after other events.
    #[cold]
    pub(super) fn run_tasks(&mut self, index: u32, generation: u32) {
        let entry = self.lock(index);
        let waiting = entry.map_or(0, |entry| entry.cold.as_ref().map_or(0, |c| c.tasks.len()));
        for _ in 0..waiting.min(ROUND) {
            self.run_task(index, generation);
        }
        if let Some(mut entry) = self.lock(index).filter(|entry| entry.has_tasks()) {
            self.requeue(&mut entry, index);
        }
    }

    /// Calls the next function of a connection. Returns false if there is none.
    #[cold]
    pub(super) fn run_task(&mut self, index: u32, generation: u32) -> bool {
        let entry = self.lock(index);
        let task = entry.and_then(|mut entry| take(&mut entry.cold.as_mut()?.tasks));
        let Some(task) = task else {
            return false;
        };
        self.call_always_as_push(index, generation, |_, connection| task.run(connection));
        true
    }

    /// Calls the functions that were posted to the service.
    pub(super) fn run_service_tasks(&mut self) {
        let tasks = &self.service.tasks;
        let waiting = tasks.lock().unwrap_or_else(PoisonError::into_inner).len();
        for _ in 0..waiting.min(ROUND) {
            self.run_service_task();
        }
        if !tasks.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.shared().post_command(CMD_POST, true);
        }
    }

    /// Calls the next function of the service. Returns false if there is none.
    pub(super) fn run_service_task(&mut self) -> bool {
        if self.number != 0 {
            return false;
        }
        let task = take(&mut self.service.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(task) = task else {
            return false;
        };
        if self.service.state.threads.run(|| task.run(&())) {
            log::function_panicked();
        }
        self.service.task_ended();
        true
    }

    /// Reads the time of the earliest timer of the service. A timer that is due already expires in the
    /// next round, so that each round ends.
    pub(super) fn set_service_timer(&mut self) {
        self.service_due = self.service.lock_timers().next();
    }

    /// Calls the functions of the service's timers that have expired.
    #[cold]
    pub(super) fn run_service_timers(&mut self) {
        let service = self.service;
        let now = service.elapsed();
        if self.service_due.is_none_or(|due| due > now) {
            return;
        }
        self.now = self.note_callbacks();
        loop {
            let mut locked = service.state.lock();
            if locked.ended {
                break;
            }
            let Some((id, mut function)) = service.lock_timers().expire(now) else {
                break;
            };
            locked.in_timer = true;
            drop(locked);
            let left = if service.state.threads.run(|| function.call(id)) {
                log::function_panicked();
                let _ = service.lock_timers().remove(id);
                Some(function)
            } else {
                service.lock_timers().repeat(id, function, service.elapsed())
            };
            // Dropping values of the program may panic.
            panics(|| drop(left));
            let mut locked = service.state.lock();
            locked.in_timer = false;
            let is_relevant = locked.ended;
            service.state.notify(locked, is_relevant);
        }
        self.set_service_timer();
    }

    /// Drops the functions of the timers, after the service has ended.
    pub(super) fn drop_service_timers(&self) {
        if self.number == 0 {
            let timers = mem::take(&mut *self.service.lock_timers());
            panics(|| drop(timers));
        }
    }
}
