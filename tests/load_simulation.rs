//! A closed loop: clients follow the answers, load follows the clients, and answers follow the load. Three regions under a wave
//! of demand settle and do not oscillate; without the rules that are there for it, they do.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use signpost::answer::Transport;
use signpost::config::{Config, Location, Mode, Places};
use signpost::load::{Loads, Origin, Rules, Subject};
use signpost::model::{ClusterId, Federated, Load, Moment, Region, View};
use signpost::table::Random;
use support::ask::Ask;
use support::*;

const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "ap-northeast-1"];
/// In each region; each holds an answer for a TTL and has an equal part of the region's clients behind it.
const RESOLVERS: usize = 500;
const TTL: u64 = 30;
/// Seconds between two publications of a cluster's load, which is that of the time since the last one.
const PUBLISHED: u64 = 15;
/// Of one cluster, in the unit of demand.
const CAPACITY: f64 = 100.0;

struct Simulation {
    world: World,
    service: Federated,
    loads: Loads,
    /// By region: the cluster that each resolver's clients go to, and when it asks again.
    resolvers: [Vec<(usize, u64)>; 3],
    /// By cluster, since its load was published last.
    served: [f64; 3],
    query: Vec<u8>,
    now: u64,
}

impl Simulation {
    fn new(rules: Rules) -> Simulation {
        let clusters = REGIONS.iter().enumerate().map(|(n, region)| cluster(&format!("c{n}"), region));
        let place = |(n, region): (usize, &&str)| Places::Inline {
            region: Region((*region).into()),
            availability_zone: None,
            cidrs: vec![IpNet::new(client(n), 24).unwrap().trunc()],
        };
        let location = Location { places: REGIONS.iter().enumerate().map(place).collect(), ..Location::default() };
        let mut config = Config { location, ..config(clusters.collect()) };
        config.zones[0].external_mode = Mode::Nearest { spare: 0 };
        let world = World::new(config, ZONE_FILE).synced();
        let share = |n: u16| load_balancer(n, "10.0.0.1", &[&format!("104.0.0.{n}")]);
        let service = Federated { key: key("ns", "svc"), shares: (0..3).map(share).collect(), imports: vec![] };
        let mut random = Random::new(3);
        // All answers begin at home, and end at different times.
        let resolvers =
            [0, 1, 2].map(|region| (0..RESOLVERS).map(|_| (region, u64::from(random.below(TTL as u32)))).collect());
        let query = Ask::new(&format!("svc.ns.{ZONE}"), 1).edns(1232).to_vec();
        let mut simulation =
            Simulation { world, service, loads: Loads::new(rules), resolvers, served: [0.0; 3], query, now: 0 };
        simulation.publish();
        simulation
    }

    fn moment(&self) -> Moment {
        Moment(Duration::from_secs(self.now))
    }

    fn subject(&self, cluster: usize) -> Subject {
        Subject::Service(ClusterId(cluster as u16), self.service.key.clone())
    }

    fn publish(&mut self) {
        let Simulation { world, service, loads, .. } = self;
        let of = |id| loads.of(&Subject::Service(id, service.key.clone()));
        world.publisher.publish_with(
            &service.key,
            Some(service),
            &signpost::table::Outlook { shedding: &of, ..signpost::table::Outlook::FAIR },
        );
    }

    fn ask(&mut self, region: usize) -> usize {
        let (answer, _) =
            self.world.exchange_with(client(region), View::External, Transport::Udp, &self.query).expect("an answer");
        // The last number of the first address.
        usize::from(answer[self.query.len() - 11 + 15])
    }

    /// A second passes; gives what each cluster serves in it, in parts of its capacity.
    fn second(&mut self, demand: [f64; 3]) -> [f64; 3] {
        self.now += 1;
        let mut serves = [0.0; 3];
        for region in 0..3 {
            for n in 0..RESOLVERS {
                if self.resolvers[region][n].1 <= self.now {
                    self.resolvers[region][n] = (self.ask(region), self.now + TTL);
                }
                serves[self.resolvers[region][n].0] += demand[region] / RESOLVERS as f64;
            }
        }
        for (cluster, serves) in serves.iter().enumerate() {
            self.served[cluster] += serves;
            // Not all at once.
            if (self.now + 5 * cluster as u64).is_multiple_of(PUBLISHED) {
                let load = self.served[cluster] / PUBLISHED as f64 / CAPACITY;
                let until = Moment(Duration::from_secs(self.now + 60));
                let (subject, now) = (self.subject(cluster), self.moment());
                self.loads.tell(&subject, Load::new(load.min(1.0)).ok(), Origin::Object { until }, now);
                self.served[cluster] = 0.0;
            }
        }
        self.loads.tick(self.moment());
        self.publish();
        serves.map(|serves| serves / CAPACITY)
    }
}

fn client(region: usize) -> IpAddr {
    Ipv4Addr::new(192, 0, region as u8, 1).into()
}

/// What happens to one cluster over a time.
#[derive(Debug, Clone, Copy, Default)]
struct Course {
    /// Times at which it turned, from more to less or from less to more, by more than a fifth of the capacity: what chance does is
    /// less.
    turns: u32,
    /// Seconds above its capacity.
    over: u32,
    last: f64,
}

fn course(series: &[f64]) -> Course {
    const TURN: f64 = 0.20;
    let (mut low, mut high, mut rising) = (series[0], series[0], None);
    let mut course = Course { last: *series.last().expect("some seconds"), ..Course::default() };
    for &value in series {
        course.over += u32::from(value > 1.0);
        (low, high) = (low.min(value), high.max(value));
        let turned = match rising {
            Some(true) => value < high - TURN,
            Some(false) => value > low + TURN,
            None => high - low > TURN,
        };
        if turned {
            let now_rising = match rising {
                Some(rising) => !rising,
                None => value >= high,
            };
            course.turns += u32::from(rising.is_some());
            (rising, low, high) = (Some(now_rising), value, value);
        }
    }
    course
}

/// Demand in one region rises at once to more than its cluster can serve, stays so, and ends.
fn step(rules: Rules) -> [Course; 3] {
    let mut simulation = Simulation::new(rules);
    let mut series: [Vec<f64>; 3] = Default::default();
    for second in 0..2_400 {
        let demand = if second < 300 { [55.0; 3] } else { [115.0, 55.0, 55.0] };
        let serves = simulation.second(demand);
        // Until then it settles.
        if second >= 900 {
            (0..3).for_each(|n| series[n].push(serves[n]));
        }
    }
    series.map(|series| course(&series))
}

#[test]
fn a_step_of_demand_settles() {
    let courses = step(Rules::new(Duration::from_secs(TTL)));
    println!("{courses:?}");
    for course in courses {
        assert!(course.turns <= 1, "{courses:?}");
        assert_eq!(course.over, 0, "{courses:?}");
    }
    // Each has its part of it: nobody is full while others have room.
    let all: Vec<f64> = courses.iter().map(|course| course.last).collect();
    assert!((all.iter().sum::<f64>() - 2.25).abs() < 0.01, "nobody is lost: {all:?}");
    assert!(all.iter().all(|load| *load < 0.98), "{all:?}");
}

#[test]
fn without_its_rules_it_oscillates() {
    let rules = Rules::new(Duration::from_secs(TTL));
    let at_once = Rules { step: 10_000, part: 1, ..rules };
    let courses = step(at_once);
    println!("{courses:?}");
    let sum = |of: fn(&Course) -> u32| courses.iter().map(of).sum::<u32>();
    assert!(sum(|course| course.turns) > 40, "the share follows at once, and the clients with it: {courses:?}");
    assert!(sum(|course| course.over) > 500, "while others have room: {courses:?}");
}

#[test]
fn a_wave_passes_and_all_go_home() {
    let mut simulation = Simulation::new(Rules::new(Duration::from_secs(TTL)));
    let mut over = [0; 3];
    let mut last = [0.0; 3];
    const WAVE: f64 = 3_600.0;
    for second in 0..9_000 {
        // The day goes around the world; then it is night.
        let wave = |region: usize| {
            let angle = std::f64::consts::TAU * (f64::from(second) / WAVE - region as f64 / 3.0);
            if second < 7_200 { 50.0 + 65.0 * angle.sin().max(0.0) } else { 40.0 }
        };
        last = simulation.second([wave(0), wave(1), wave(2)]);
        for (over, load) in over.iter_mut().zip(last) {
            *over += u32::from(load > 1.0);
        }
    }
    println!("{over:?} {last:?}");
    // In two hours of 115 of 100 at the peaks: less than a minute each.
    assert!(over.iter().all(|over| *over < 60), "{over:?}");
    // Everybody is at home again.
    assert!(last.iter().all(|load| (load - 0.40).abs() < 0.001), "{last:?}");
}
