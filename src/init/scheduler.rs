//! Which shard this process has, as a scheduler says.

use super::error::Error;
use crate::calib::Shard;

/// HyperQueue. Source: "Task arrays" in its documentation; tasks may be numbered from anywhere.
const HYPERQUEUE: &str = "HQ_TASK_ID";
/// Kubernetes, Indexed Jobs. Source: "Indexed Job for Parallel Processing with Static Work Assignment"; from 0.
const KUBERNETES: &str = "JOB_COMPLETION_INDEX";
/// Slurm. Source: `sbatch(1)`, "Output environment variables" of job arrays.
const SLURM: &str = "SLURM_ARRAY_TASK_ID";
const SLURM_COUNT: &str = "SLURM_ARRAY_TASK_COUNT";
const SLURM_MIN: &str = "SLURM_ARRAY_TASK_MIN";
const SLURM_MAX: &str = "SLURM_ARRAY_TASK_MAX";
const SLURM_STEP: &str = "SLURM_ARRAY_TASK_STEP";

/// The shard that a user means by `I/N`, `auto` or `auto/N`, and where its number is from if a scheduler says it.
///
/// HyperQueue comes before the others, as its workers run inside their jobs. `auto/N` takes the number of the task as it
/// is: a task that is started again alone keeps its shard. `auto` also needs the number of tasks, which only Slurm gives.
///
/// # Errors
/// [`Error::NoShard`], [`Error::NoScheduler`], [`Error::Scheduler`].
pub fn shard(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<(Shard, Option<&'static str>), Error> {
    let no_shard = || Error::NoShard { text: text.to_owned() };
    let (index, count) = text.split_once('/').map_or((text, None), |(index, count)| (index, Some(count)));
    let count = count.map(|count| count.parse().ok().filter(|count| *count > 0).ok_or_else(no_shard)).transpose()?;
    if index != "auto" {
        let index = index.parse().map_err(|_| no_shard())?;
        let shard = Shard { index, count: count.ok_or_else(no_shard)? };
        return if shard.index < shard.count { Ok((shard, None)) } else { Err(no_shard()) };
    }
    let known = [HYPERQUEUE, KUBERNETES, SLURM];
    let scheduler = known.into_iter().find(|name| variable(name).is_some());
    let scheduler = scheduler.ok_or(Error::NoScheduler { variables: known.into() })?;
    let index = number(scheduler, variable)?;
    match count {
        Some(count) if index < count => Ok((Shard { index, count }, Some(scheduler))),
        Some(count) => {
            let what = format!("{scheduler} is {index}, and the shards of {count} are 0 to {}", count - 1);
            Err(Error::Scheduler { what })
        }
        None if scheduler == SLURM => Ok((of_slurm_array(index, variable)?, Some(SLURM))),
        None => {
            Err(Error::Scheduler { what: format!("{scheduler} is set, and nothing says how many tasks there are") })
        }
    }
}

/// The place of a task in an array whose numbers may begin anywhere and have a step.
fn of_slurm_array(task: usize, variable: &dyn Fn(&str) -> Option<String>) -> Result<Shard, Error> {
    let count = number(SLURM_COUNT, variable)?;
    let or = |name: &str, otherwise| if variable(name).is_some() { number(name, variable) } else { Ok(otherwise) };
    let (least, step) = (or(SLURM_MIN, 0)?, or(SLURM_STEP, 1)?.max(1));
    let last = or(SLURM_MAX, least + step * count.saturating_sub(1))?;
    let even = task >= least && (task - least).is_multiple_of(step) && (task - least) / step < count;
    if even && last >= least && (last - least) / step + 1 == count {
        return Ok(Shard { index: (task - least) / step, count });
    }
    let what = format!("task {task} of an array of {count} from {least} to {last} has no place among equal steps");
    Err(Error::Scheduler { what })
}

fn number(name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<usize, Error> {
    let text = variable(name).ok_or_else(|| Error::Scheduler { what: format!("{name} is not set") })?;
    // Larger numbers could not be counted with.
    let value = text.parse::<u32>();
    value.map(|value| value as usize).map_err(|_| Error::Scheduler { what: format!("{name} is `{text}`") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, set: &[(&str, &str)]) -> Result<(String, Option<&'static str>), String> {
        let variable = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        shard(text, &variable).map(|(shard, from)| (shard.to_string(), from)).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn is(text: &str, set: &[(&str, &str)], shard: &str, from: Option<&'static str>) {
        assert_eq!(found(text, set), Ok((shard.to_owned(), from)));
    }

    #[test]
    fn shards_are_numbered_from_0() {
        is("0/1", &[], "0/1", None);
        is("3/4", &[("SLURM_ARRAY_TASK_ID", "0")], "3/4", None);
        for wrong in ["4/4", "0/0", "1", "/2", "1/", "-1/2", "a/b", "1/2/3", "auto/0", "auto/x", ""] {
            assert_eq!(
                found(wrong, &[("JOB_COMPLETION_INDEX", "0")]),
                Err(format!("`{wrong}` is no shard")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn schedulers_say_which() {
        let slurm = [("SLURM_ARRAY_TASK_ID", "7"), ("SLURM_ARRAY_TASK_COUNT", "4"), ("SLURM_ARRAY_TASK_MIN", "5")];
        is("auto", &slurm, "2/4", Some("SLURM_ARRAY_TASK_ID"));
        let steps = [
            ("SLURM_ARRAY_TASK_ID", "9"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("SLURM_ARRAY_TASK_MIN", "5"),
            ("SLURM_ARRAY_TASK_MAX", "11"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
        ];
        is("auto", &steps, "2/4", Some("SLURM_ARRAY_TASK_ID"));
        is("auto/8", &[("JOB_COMPLETION_INDEX", "3")], "3/8", Some("JOB_COMPLETION_INDEX"));
        is("auto/8", &[("HQ_TASK_ID", "1"), ("SLURM_ARRAY_TASK_ID", "5")], "1/8", Some("HQ_TASK_ID"));
        // One task of an array that is started again alone.
        let again = [("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "1"), ("SLURM_ARRAY_TASK_MIN", "3")];
        is("auto/8", &again, "3/8", Some("SLURM_ARRAY_TASK_ID"));
    }

    #[test]
    fn what_cannot_be_known_is_refused() {
        let refused = |text: &str, set: &[(&str, &str)], reason: &str| {
            let error = found(text, set).unwrap_err();
            assert!(error.contains(reason), "{error}");
        };
        refused("auto", &[], "none of HQ_TASK_ID, JOB_COMPLETION_INDEX, SLURM_ARRAY_TASK_ID is set");
        refused("auto", &[("JOB_COMPLETION_INDEX", "3")], "how many tasks");
        refused("auto", &[("SLURM_ARRAY_TASK_ID", "3")], "SLURM_ARRAY_TASK_COUNT is not set");
        refused("auto/3", &[("JOB_COMPLETION_INDEX", "3")], "the shards of 3 are 0 to 2");
        refused("auto/3", &[("JOB_COMPLETION_INDEX", "one")], "JOB_COMPLETION_INDEX is `one`");
        // Tasks 1, 3 and 7.
        let list = [
            ("SLURM_ARRAY_TASK_ID", "3"),
            ("SLURM_ARRAY_TASK_COUNT", "3"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
            ("SLURM_ARRAY_TASK_MAX", "7"),
            ("SLURM_ARRAY_TASK_STEP", "1"),
        ];
        refused("auto", &list, "has no place among equal steps");
    }
}
