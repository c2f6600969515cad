//! The CMake build and its tests: every C example, with the shared and the static library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{MINUTE, Workspace, read_file, show};
use crate::servers;
use crate::steps::Stop;
use crate::tools::{self, on_path};

/// A configured build folder.
pub struct Build {
    cmake: PathBuf,
    ctest: PathBuf,
    folder: PathBuf,
}

impl Build {
    /// Configures a source folder, and builds it with these environment variables.
    pub fn make(
        ws: &Workspace,
        source: &Path,
        folder: PathBuf,
        settings: &[String],
        environment: &[(&str, String)],
    ) -> Result<Self, Stop> {
        let build = Self { cmake: tools::CMAKE.need(ws)?, ctest: tools::CTEST.need(ws)?, folder };
        let mut configure = ws.command(&build.cmake);
        configure.arg("-S").arg(source).arg("-B").arg(&build.folder);
        let generator = choose_generator(ws, &mut configure)?;
        build.remove_if_incompatible(generator)?;
        configure.args(settings.iter().map(|setting| format!("-D{setting}")));
        show(&mut configure, 5 * MINUTE)?;
        let mut compile = ws.command(&build.cmake);
        compile.envs(environment.iter().map(|(name, value)| (name, value)));
        show(compile.arg("--build").arg(&build.folder), 20 * MINUTE)?;
        Ok(build)
    }

    /// Runs the tests whose names match. If no name matches, that is a failure.
    pub fn test(&self, ws: &Workspace, names: &str) -> Result<String, Stop> {
        self.test_with(ws, names, &[])
    }

    /// The same, with these environment variables.
    pub fn test_with(
        &self,
        ws: &Workspace,
        names: &str,
        environment: &[(&str, &str)],
    ) -> Result<String, Stop> {
        let mut ctest = ws.command(&self.ctest);
        ctest.env("PATH", servers::path(ws)?).envs(environment.iter().copied());
        ctest.arg("--test-dir").arg(&self.folder);
        ctest.args(["--output-on-failure", "--no-tests=error", "--timeout", "120", "-R", names]);
        // The tests wait most of the time, except under valgrind.
        ctest.args(["--parallel", "2"]);
        let output = show(&mut ctest, 20 * MINUTE)?;
        output
            .lines()
            .find(|line| line.contains("% tests passed"))
            .map(str::to_owned)
            .ok_or_else(|| Stop::Fail("ctest printed no result".to_owned()))
    }

    pub fn install(&self, ws: &Workspace, prefix: &Path) -> Result<(), Stop> {
        let mut install = ws.command(&self.cmake);
        install.arg("--install").arg(&self.folder).arg("--prefix").arg(prefix);
        show(&mut install, 2 * MINUTE)?;
        Ok(())
    }

    /// Removes a build folder of another generator or another source folder, which CMake rejects.
    fn remove_if_incompatible(&self, generator: &str) -> Result<(), Stop> {
        let cache = self.folder.join("CMakeCache.txt");
        if !cache.exists() {
            return Ok(());
        }
        let text = read_file(&cache)?;
        let same = |line: String| text.lines().any(|l| l == line);
        let folder = self.folder.display();
        if !same(format!("CMAKE_GENERATOR:INTERNAL={generator}"))
            || !same(format!("CMAKE_CACHEFILE_DIR:INTERNAL={folder}"))
        {
            fs::remove_dir_all(&self.folder).map_err(|e| format!("remove {folder}: {e}"))?;
        }
        Ok(())
    }
}

/// Chooses Ninja if it is installed, else make if it is installed, else installs Ninja.
fn choose_generator(ws: &Workspace, configure: &mut Command) -> Result<&'static str, Stop> {
    let generator = if tools::NINJA.find(ws).is_none() && on_path("make").is_some() {
        "Unix Makefiles"
    } else {
        configure.arg(format!("-DCMAKE_MAKE_PROGRAM={}", tools::NINJA.need(ws)?.display()));
        "Ninja"
    };
    configure.args(["-G", generator]);
    Ok(generator)
}
