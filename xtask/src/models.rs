//! `cargo xtask models`: the models of the library's protocols between threads, which loom runs with
//! every order of the threads' operations; and proof that each model finds a defect.

use std::path::Path;

use crate::run::{MINUTE, Workspace, collect, copy_all, copy_one, read_file, show, write_file};
use crate::steps::Stop;

/// A defect: a change of one text of the sources, and the model that finds it.
struct Mutation {
    file: &'static str,
    from: &'static str,
    to: &'static str,
    model: &'static str,
}

const fn mutation(
    model: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutation {
    Mutation { file, from, to, model }
}

const FD: &str = "src/sys/fd.rs";
const CANCEL: &str = "src/io/cancel.rs";
const LOCK: &str = "src/io/lock.rs";
const FAILURE: &str = "src/stream/failure.rs";
const SERVICE: &str = "src/serve/reactor/service.rs";
const POOL: &str = "src/ffi/handle/pool.rs";
const TABLE: &str = "src/ffi/handle/table.rs";

const MUTATIONS: &[Mutation] = &[
    // Each user that finds the count at zero closes the descriptor.
    mutation(
        "last_user_closes_the_descriptor",
        FD,
        "if last.is_ok() {\n            self.close_now();",
        "if last.is_ok() || last == Err(RELEASED) {\n            self.close_now();",
    ),
    // The closing call closes the descriptor while other calls use it.
    mutation(
        "last_user_closes_the_descriptor",
        FD,
        "LATE | CLOSED,\n            RELEASED,",
        "self.state.load(Ordering::Acquire) | LATE | CLOSED,\n            RELEASED,",
    ),
    // A close between the check and the count of a call: the call uses a closed descriptor.
    mutation(
        "last_user_closes_the_descriptor",
        FD,
        "if (self.state.fetch_add(1, Ordering::SeqCst) as i64) < 0 {\n            \
         return self.enter_late();\n        }",
        "if (self.state.load(Ordering::SeqCst) as i64) < 0 {\n            return None;\n        }\n        \
         self.state.fetch_add(1, Ordering::SeqCst);",
    ),
    mutation("close_waits_for_a_hold", FD, "self.0.leave(HOLD);", "self.0.leave(HOLD - 1);"),
    mutation(
        "release_excludes_close_and_calls",
        FD,
        "(state == 1 || inherited",
        "(state & CLOSED == 0 || inherited",
    ),
    mutation(
        "token_and_event_agree_after_fires_and_resets",
        CANCEL,
        "FIRING | RESETTING if",
        "FIRING if",
    ),
    // A waiter misses the unlock.
    mutation(
        "lock_admits_one_thread_and_wakes_each_waiter",
        LOCK,
        "drop(self.waiters.lock().unwrap_or_else(PoisonError::into_inner));\n",
        "",
    ),
    mutation(
        "lock_admits_one_thread_and_wakes_each_waiter",
        LOCK,
        "swap(mine | CONTENDED, Ordering::Acquire)",
        "swap(mine, Ordering::Acquire)",
    ),
    mutation(
        "lock_admits_one_thread_and_wakes_each_waiter",
        LOCK,
        "swap(FREE, Ordering::Release)",
        "swap(FREE, Ordering::Relaxed)",
    ),
    mutation(
        "lock_of_the_parent_is_free_in_a_child",
        LOCK,
        "let inherited = state & !CONTENDED != mine;",
        "let inherited = state != mine;",
    ),
    // The free list does not detect that a slot left it and came back.
    mutation(
        "free_list_gives_each_slot_once",
        POOL,
        ".wrapping_add(GENERATION_STEP)",
        ".wrapping_add(0)",
    ),
    mutation(
        "free_list_gives_each_slot_once",
        POOL,
        "let (success, failure) = (Ordering::Release, Ordering::Relaxed);",
        "let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);",
    ),
    mutation(
        "handle_is_freed_once",
        POOL,
        "self.state.compare_exchange(state, next, success, failure).is_ok()",
        "self.state.fetch_update(success, failure, |_| Some(next)).is_ok()",
    ),
    // A recycled handle: a slot gets the next object while a thread uses the previous one.
    mutation(
        "object_in_use_outlives_its_removal",
        TABLE,
        "while slot.state() & LOW != 0 {",
        "while slot.state() & LOW > 1 {",
    ),
    mutation(
        "object_in_use_outlives_its_removal",
        TABLE,
        "Ordering::AcqRel,\n            Ordering::Acquire,\n        ) {\n            Ok(_) => return,",
        "Ordering::Relaxed,\n            Ordering::Acquire,\n        ) {\n            Ok(_) => return,",
    ),
    // A reset is read as the end of the stream.
    mutation(
        "reset_of_unix_socket_is_never_the_end_of_the_stream",
        FAILURE,
        "0 if alone => None,",
        "0 if alone || !io.is_closed() => None,",
    ),
    mutation(
        "reset_of_tcp_is_never_the_end_of_the_stream",
        FD,
        "& CALLS != 0 && !done()",
        "& CALLS != 0 && done()",
    ),
    // A read takes the end that a close causes for that of the peer.
    mutation(
        "close_ends_a_waiting_read",
        "src/stream/close.rs",
        "if self.flags.fetch_or(CLOSING, Ordering::SeqCst) & CLOSING != 0 {",
        "if self.flags.fetch_or(0, Ordering::SeqCst) & CLOSING != 0 {",
    ),
    // A read that begins between the check for other calls and the close waits forever.
    mutation(
        "abort_ends_a_waiting_read",
        "src/stream/close.rs",
        "let closed = self.descriptor.close(&io);\n        \
         if closed && (self.descriptor.is_shared(&io) || sys::fork::has_forked()) {",
        "let others = self.descriptor.is_shared(&io);\n        \
         let closed = self.descriptor.close(&io);\n        if closed && others {",
    ),
    // A connection that is admitted during a drain is not notified.
    mutation(
        "drain_ends_each_admitted_connection",
        "src/serve/blocking.rs",
        "if is_draining {",
        "if is_draining && !is_stopped {",
    ),
    mutation(
        "drain_ends_each_added_connection",
        SERVICE,
        "() if locked.ended => Err(ErrorKind::Closed),",
        "() if locked.ended && locked.live > 0 => Err(ErrorKind::Closed),",
    ),
    // A service closes the listeners while its loop still begins to use them.
    mutation(
        "drain_ends_each_added_connection",
        "src/serve/reactor/event_loop/accepting.rs",
        "held.suspend();",
        "drop(held);",
    ),
    mutation(
        "posted_function_is_called_once_before_the_end",
        SERVICE,
        "if locked.ended {\n            return Err(ErrorKind::Closed);",
        "if locked.ended && locked.live > 0 {\n            return Err(ErrorKind::Closed);",
    ),
    mutation(
        "function_of_a_connection_is_called_before_its_close",
        "src/serve/reactor/event_loop/teardown.rs",
        "while self.run_task(index, generation) {}",
        "drop(self.lock(index));",
    ),
    mutation(
        "accepted_message_is_sent_before_a_close",
        "src/serve/reactor/conn_table.rs",
        "() if self.has_queued() => NextAction::Nothing,",
        "",
    ),
];

/// The command.
pub fn models(ws: &Workspace) -> Result<bool, String> {
    println!("{}", run(ws)?);
    Ok(true)
}

/// Runs all models, each with the number of interleavings.
pub fn run(ws: &Workspace) -> Result<String, Stop> {
    // A target directory of its own: the build differs from all others.
    let target = ws.target.join("models");
    let output = show(&mut cargo(ws, (&ws.root, &target), &["model::"]), 10 * MINUTE)?;
    let explored: Vec<u64> = output
        .lines()
        .filter(|line| line.contains("model "))
        .filter_map(|line| line.strip_suffix(" interleavings")?.rsplit(' ').next()?.parse().ok())
        .collect();
    if explored.is_empty() {
        return Err(Stop::Fail("no model ran".to_owned()));
    }
    let sum: u64 = explored.iter().sum();
    Ok(format!("{} models, {sum} interleavings", explored.len()))
}

/// `--mutants`: applies each mutation to a copy of the sources, and expects its model to fail.
pub fn mutants(ws: &Workspace) -> Result<bool, String> {
    let copy = ws.target.join("models").join("mutants");
    copy_sources(ws, &copy)?;
    let mut missed = 0;
    for (number, mutation) in MUTATIONS.iter().enumerate() {
        let Mutation { file, from, to, model } = mutation;
        let name = format!("{number}: {file}: {from:?} -> {to:?}");
        match try_one(ws, &copy, mutation)? {
            Ok(message) => println!("{name}\n  {model} found it: {message}"),
            Err(reason) => {
                missed += 1;
                println!("{name}\n  {model}: {reason}");
            }
        }
    }
    println!("{} of {} mutations found", MUTATIONS.len() - missed, MUTATIONS.len());
    Ok(missed == 0)
}

/// The message of the model that has found the defect, or why there is none.
fn try_one(
    ws: &Workspace,
    copy: &Path,
    mutation: &Mutation,
) -> Result<Result<String, &'static str>, String> {
    // Cargo does not distinguish the copy from the original in one target directory.
    let (path, target) = (copy.join(mutation.file), copy.join("target"));
    let paths = (copy, target.as_path());
    let source = read_file(&path)?;
    if !source.contains(mutation.from) {
        return Ok(Err("the text no longer exists: change the entry in xtask/src/models.rs"));
    }
    write_file(&path, &source.replace(mutation.from, mutation.to))?;
    // An ordinary test may have the same name.
    let model = format!("model::{}", mutation.model);
    let built = collect(&mut cargo(ws, paths, &["--list"]), 10 * MINUTE);
    let tested = collect(&mut cargo(ws, paths, &[&model]), 3 * MINUTE);
    write_file(&path, &source)?;
    let (is_built, output) = built?;
    if !is_built {
        println!("{output}");
        return Ok(Err("does not compile"));
    }
    let output = match tested {
        Ok((false, output)) => output,
        Ok((true, _)) => return Ok(Err("NOT FOUND")),
        Err(error) => {
            println!("{error}");
            return Ok(Err("did not end"));
        }
    };
    let mut lines = output.lines().skip_while(|line| !line.contains("panicked at"));
    match lines.nth(1) {
        Some(message) => Ok(Ok(message.to_owned())),
        None => {
            println!("{output}");
            Ok(Err("ended without a failed check"))
        }
    }
}

/// Copies what cargo needs to build the library and to run its unit tests.
pub fn copy_sources(ws: &Workspace, copy: &Path) -> Result<(), String> {
    for name in ["src", "tests", "benches", "examples", "xtask", "docs", "include", "fuzz/corpus"] {
        copy_all(&ws.root.join(name), &copy.join(name))?;
    }
    for name in ["Cargo.toml", "Cargo.lock", "build.rs", "README.md"] {
        copy_one(&ws.root.join(name), &copy.join(name))?;
    }
    Ok(())
}

/// Runs the models whose names contain `arguments`, one after another.
fn cargo(
    ws: &Workspace,
    (root, target): (&Path, &Path),
    arguments: &[&str],
) -> std::process::Command {
    let mut cargo = ws.cargo(&["test", "--lib", "--all-features", "--"]);
    cargo.current_dir(root);
    cargo.env("RUSTFLAGS", "--cfg keepsock_model");
    cargo.env("CARGO_TARGET_DIR", target);
    cargo.env("RUST_BACKTRACE", "0");
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo.args(["--test-threads=1", "--nocapture"]).args(arguments);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each mutation changes the present sources.
    #[test]
    fn mutations_exist_in_the_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for Mutation { file, from, to, .. } in MUTATIONS {
            let source = read_file(&root.join(file)).unwrap_or_default();
            assert!(source.contains(from) && from != to, "{file}: {from}");
        }
    }
}
