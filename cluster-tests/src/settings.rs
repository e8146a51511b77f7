//! The config file of one node of a local cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::{Table, Value};

/// What differs from node to node; everything else comes from the cluster's base settings.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    pub name: String,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub cluster: SocketAddr,
    /// The address that peers dial, if it is not `cluster` itself.
    pub advertise: SocketAddr,
    pub seeds: Vec<SocketAddr>,
    pub bootstrap_expect: usize,
    pub data_dir: PathBuf,
}

impl NodeSettings {
    /// The node's whole config: `base`, with this node's own values put in.
    pub fn over(&self, base: &Table) -> Table {
        let mut table = base.clone();
        let seeds = self.seeds.iter().map(|seed| Value::from(seed.to_string())).collect::<Vec<_>>();
        let expect = i64::try_from(self.bootstrap_expect).expect("a small number of nodes");
        set(&mut table, &["node", "name"], self.name.as_str());
        set(&mut table, &["listen", "address"], self.listen.to_string());
        set(&mut table, &["admin", "address"], self.admin.to_string());
        set(&mut table, &["cluster", "address"], self.cluster.to_string());
        set(&mut table, &["cluster", "advertise"], self.advertise.to_string());
        set(&mut table, &["cluster", "seeds"], seeds);
        set(&mut table, &["cluster", "bootstrap_expect"], expect);
        set(&mut table, &["data_dir"], self.data_dir.display().to_string());
        table
    }
}

/// Puts `value` at the place that `path` names, making the tables on the way.
///
/// # Panics
///
/// When the path goes through something that is not a table.
pub fn set(table: &mut Table, path: &[&str], value: impl Into<Value>) {
    let (last, parents) = path.split_last().expect("a setting has a name");
    let parent = parents.iter().fold(table, |table, part| {
        let inner = table.entry(*part).or_insert_with(|| Value::Table(Table::new()));
        inner.as_table_mut().unwrap_or_else(|| panic!("{part} of {path:?} is not a table"))
    });
    parent.insert((*last).to_owned(), value.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_values_win_and_the_rest_of_the_base_stays() {
        let base: Table =
            "apps = ['relay']\n[cluster]\nlease = '3s'\nbootstrap_expect = 9".parse().unwrap();
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let settings = NodeSettings {
            name: "n2".to_owned(),
            listen: at(1),
            admin: at(2),
            cluster: at(3),
            advertise: at(4),
            seeds: vec![at(4), at(5)],
            bootstrap_expect: 3,
            data_dir: PathBuf::from("data"),
        };
        let mut table = settings.over(&base);
        set(&mut table, &["namespaces", "/", "delivery"], "direct");
        let back: Table = toml::to_string(&table).unwrap().parse().unwrap();
        assert_eq!(back["apps"][0].as_str(), Some("relay"));
        assert_eq!(back["cluster"]["lease"].as_str(), Some("3s"));
        assert_eq!(back["cluster"]["bootstrap_expect"].as_integer(), Some(3));
        assert_eq!(back["cluster"]["seeds"][1].as_str(), Some("127.0.0.1:5"));
        assert_eq!(back["namespaces"]["/"]["delivery"].as_str(), Some("direct"));
    }
}
