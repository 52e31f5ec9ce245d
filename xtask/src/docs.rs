//! Tests that the documents say what the sources have.

use crate::project::Project;

fn read(path: &str) -> String {
    let path = Project::find().unwrap().root.join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// What follows `before` in each place, as far as it is a word.
fn words_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.';
    text.split(before).skip(1).map(move |rest| rest.split(is_end).next().unwrap_or_default())
}

/// Panics if a word is not in the document, in the quotes of code.
fn all_in<'a>(document: &str, words: impl Iterator<Item = &'a str>) {
    let text = read(document);
    let missing: Vec<_> = words.filter(|word| !text.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "{document} does not have {missing:?}");
}

#[test]
fn every_system_call_is_documented() {
    let table = read("kernel/src/syscall/table.rs");
    assert!(words_after(&table, "__NR_").count() > 150);
    all_in("docs/programs.md", words_after(&table, "__NR_"));
}

#[test]
fn every_word_of_the_kernels_command_line_is_documented() {
    let options = read("kernel/src/options.rs");
    let (_, apply) = options.split_once("fn apply").unwrap();
    let keys = apply.lines().filter_map(|line| line.strip_prefix("        \""));
    let keys: Vec<_> = keys.filter_map(|line| line.split_once("\" =>")).map(|it| it.0).collect();
    assert!(keys.len() > 8);
    all_in("docs/command-line.md", keys.into_iter());
    let record = read("kernel/src/trace/record.rs");
    let (_, categories) = record.split_once("CATEGORIES: ").unwrap();
    let categories = categories.split_once("];").unwrap().0;
    assert!(words_after(categories, "    (\"").count() > 10);
    all_in("docs/command-line.md", words_after(categories, "    (\""));
}
