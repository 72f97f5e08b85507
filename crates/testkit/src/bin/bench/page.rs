//! Pages of the documentation with parts that a script writes: between `<!-- NAME -->` and
//! `<!-- end of NAME -->`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Puts `text` in the place of the part `name` of the page.
pub(crate) fn put(page: &Path, name: &str, text: &str) -> Result<()> {
    let shown = page.display();
    let old = fs::read_to_string(page).with_context(|| format!("cannot read {shown}"))?;
    let new = replaced(&old, name, text).with_context(|| format!("{shown} has no part {name}"))?;
    fs::write(page, new).with_context(|| format!("cannot write {shown}"))
}

fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_replaced_and_nothing_else() {
        let page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n";
        let new = "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n";
        assert_eq!(replaced(page, "x", "new\n").as_deref(), Some(new));
        assert_eq!(replaced(new, "x", "new\n").as_deref(), Some(new));
        assert_eq!(replaced(page, "y", "new\n"), None);
    }
}
