//! From YAML to what each proxy gets, case by case, and what a real Envoy says to it.

mod common;

use anyhow::{Result, ensure};
use common::{Form, root};
use navarch_testkit::{
    envoy,
    golden::{self, Answer, Case},
};
use std::fmt::Write as _;

#[test]
fn golden_cases_are_as_expected() -> Result<()> {
    golden::run(root(), |case| answer(case, Form::Sent))
}

#[test]
fn envoy_accepts_the_resources_of_all_golden_cases() -> Result<()> {
    let mut bootstraps = Vec::new();
    for case in golden::cases(root())? {
        for (proxy, resources) in answer(&case, Form::Joined)?.proxies {
            let name = format!("{}/{proxy}", case.name);
            bootstraps.push((name, envoy::bootstrap::of_resources(&resources)));
        }
    }
    let rejected = envoy::validate_all(&bootstraps)?;
    let reasons: String = rejected.iter().map(|r| format!("{}:\n{}\n", r.name, r.reason)).collect();
    ensure!(rejected.is_empty(), "of {} proxies:\n{reasons}", bootstraps.len());
    Ok(())
}

fn answer(case: &Case, form: Form) -> Result<Answer> {
    let loaded = common::from_files(case)?;
    let mut answer = Answer { proxies: common::proxies(case, &loaded, form)?, ..Answer::default() };
    for finding in &loaded.findings {
        writeln!(answer.findings, "{finding}")?;
    }
    Ok(answer)
}
