//! The reference of the C API as HTML: Doxygen reads the headers (docs/Doxyfile).

use std::fs;

use crate::run::{MINUTE, Workspace, read_file, show};
use crate::steps::Stop;
use crate::tools;

/// The folder below target/, as docs/Doxyfile names it.
const FOLDER: &str = "c-reference";

/// Writes the pages. A warning of Doxygen is an error: an item without a comment, an undocumented
/// parameter, a name that does not exist.
pub fn check(ws: &Workspace) -> Result<String, Stop> {
    let doxygen = tools::DOXYGEN.need(ws)?;
    tools::AWK.need(ws)?;
    let folder = ws.root.join("target").join(FOLDER);
    // The pages of removed items.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|e| format!("remove {}: {e}", folder.display()))?;
    }
    let mut command = ws.command(doxygen);
    command.arg("docs/Doxyfile").env("KEEPSOCK_VERSION", ws.version()?);
    if !show(&mut command, 3 * MINUTE)?.trim().is_empty() {
        return Err(Stop::Fail("Doxygen printed a warning: see above".to_owned()));
    }
    let index = folder.join("index.html");
    if !read_file(&index)?.contains("keepsock_client_connect") {
        return Err(Stop::Fail(format!("{} has no index by task", index.display())));
    }
    Ok(index.display().to_string())
}
