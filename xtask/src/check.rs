//! Rules of the repository that no compiler checks (`design.md` 4, `style.md` 5).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Files longer than this hold two jobs.
const MAX_RUST_LINES: usize = 600;

/// Which layer a crate is in; a crate may depend on lower layers only, services never on each other.
const LAYERS: &[(&str, u8)] = &[
    ("copass-types", 0),
    ("copass-errors", 1),
    ("copass-proto", 2),
    ("copass-runtime", 3),
    ("copass-client", 3),
    ("copass-store", 4),
    ("copass-queue", 4),
    ("copass-llm", 4),
    ("copass-test-support", 5),
    ("copass-agent-runner", 6),
    ("copass-concierge", 6),
    ("copass-gateway", 6),
    ("copass-ingestion", 6),
    ("copass-trigger-dispatcher", 6),
    ("copass-node", 7),
    ("copass-cli", 8),
    ("copass-e2e", 9),
    ("xtask", 9),
];

/// Text that would tie the project to one machine or one registry. Split, so that this file does not match itself.
const FORBIDDEN: &[&str] = &[
    concat!("/wo", "rk/main"),
    concat!("/ro", "ot/.cargo"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("pypi", ".org"),
    concat!("deb.debian", ".org"),
    concat!("registry.npmjs", ".org"),
];

pub(crate) fn run() -> Result<()> {
    let mut problems = Vec::new();
    dependency_direction(&mut problems)?;
    for file in tracked_files()? {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        check_file(&file, &text, &mut problems);
    }
    migrations_are_paired(&mut problems)?;
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{} problem(s):\n  {}", problems.len(), problems.join("\n  "))
}

fn check_file(file: &Path, text: &str, problems: &mut Vec<String>) {
    let name = file.display();
    let lines = text.lines().count();
    if file.extension().is_some_and(|extension| extension == "rs") && lines > MAX_RUST_LINES {
        problems.push(format!("{name}: {lines} lines; split it at {MAX_RUST_LINES}"));
    }
    if file.file_name().is_some_and(|name| name != "Cargo.lock") {
        for forbidden in FORBIDDEN.iter().filter(|forbidden| text.contains(**forbidden)) {
            problems.push(format!("{name}: names `{forbidden}`"));
        }
    }
    if file.extension().is_some_and(|extension| extension == "rs") && !text.trim_start().starts_with("//!") {
        let is_module_of_a_test = file
            .components()
            .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs");
        if !is_module_of_a_test {
            problems.push(format!("{name}: the head of the module does not say why it exists"));
        }
    }
}

fn tracked_files() -> Result<Vec<PathBuf>> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .output()?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .map(PathBuf::from)
        .filter(|file| file.is_file())
        .collect())
}

fn dependency_direction(problems: &mut Vec<String>) -> Result<()> {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let mut manifests = vec![PathBuf::from("e2e/Cargo.toml"), PathBuf::from("xtask/Cargo.toml")];
    for entry in fs::read_dir("crates")? {
        manifests.push(entry?.path().join("Cargo.toml"));
    }
    for manifest in manifests.iter().filter(|manifest| manifest.is_file()) {
        let document: toml::Table = fs::read_to_string(manifest)?
            .parse()
            .with_context(|| manifest.display().to_string())?;
        let name = document["package"]["name"].as_str().unwrap_or_default().to_owned();
        let Some(layer) = layers.get(name.as_str()) else {
            problems.push(format!(
                "{}: {name} has no layer in xtask/src/check.rs",
                manifest.display()
            ));
            continue;
        };
        let Some(dependencies) = document.get("dependencies").and_then(toml::Value::as_table) else {
            continue;
        };
        for dependency in dependencies.keys() {
            if layers
                .get(dependency.as_str())
                .is_some_and(|below| below >= layer && *layer < 9)
            {
                // Within one layer only these may see each other: none.
                problems.push(format!("{name} depends on {dependency}, which is not below it"));
            }
        }
    }
    Ok(())
}

fn migrations_are_paired(problems: &mut Vec<String>) -> Result<()> {
    let names = |directory: &str| -> Result<BTreeSet<String>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    let (postgres, sqlite) = (names("migrations/postgres")?, names("migrations/sqlite")?);
    for name in postgres.symmetric_difference(&sqlite) {
        problems.push(format!("migration {name} exists for one database only"));
    }
    Ok(())
}
