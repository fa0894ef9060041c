"""Writes sentences with a known class by rule.

They teach cases that are rare in tweets: the direction of a number ("fell to 3.1 from 4.2"), losses that narrow, plain
corporate facts, product facts. With another seed than the training's, they also measure the difference of a stored
model from float32.
"""

from __future__ import annotations

import random
import re

from training.sentiment.labels import NEG, NEU, POS

FIRMS = [
    "The company",
    "The group",
    "Northfield",
    "Arvanto Oyj",
    "Kestrel Holdings",
    "Delmar plc",
    "Sorrel Bank",
    "Ostrava Steel",
    "Halden Corp",
    "Mirado",
    "The Stockholm-based firm",
    "It",
    "The retailer",
    "The chipmaker",
    "Vantor Inc",
    "The airline",
    "The Baltic unit",
    "Tessel AB",
]
GAINS = [
    "operating profit",
    "net sales",
    "revenue",
    "pretax profit",
    "earnings per share",
    "EBITDA",
    "order intake",
    "net profit",
    "turnover",
    "gross profit",
    "cash flow",
    "comparable sales",
    "net interest income",
    "the order book",
    "exports",
    "advertising sales",
]
LOSSES = [
    "net loss",
    "operating loss",
    "debt",
    "operating costs",
    "the pretax loss",
    "write-downs",
    "credit losses",
    "unit costs",
    "customer churn",
    "restructuring charges",
]
RISES = ["rose", "increased", "grew", "climbed", "jumped", "was up", "surged", "improved", "went up"]
FALLS = ["fell", "decreased", "dropped", "declined", "slumped", "was down", "slid", "shrank", "went down"]
AMOUNTS = ["EUR {} mn", "EUR{}m", "USD {} million", "${} billion", "SEK {}m", "GBP {} million", "{} million euros"]
PERIODS = [
    "in the second quarter",
    "in 2009",
    "for the first nine months",
    "in Q3",
    "year on year",
    "in the period",
    "from January to June",
    "during the financial year",
    "in the quarter to March",
    "last year",
    "",
]


class Writer:
    """Writes sentences; each method returns one with its class. All randomness comes from `rng`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.pick = rng, rng.choice

    def two(self) -> tuple[str, str]:
        """Return two sums of money, the smaller one first."""
        u, a = self.pick(AMOUNTS), self.rng.uniform(0.5, 900)
        b = a * self.rng.uniform(1.03, 2.2)
        low, high = (u.format(f"{v:.1f}" if v < 100 else f"{v:.0f}") for v in (a, b))
        return low, high

    def direction(self) -> tuple[str, int]:
        """Return a figure that rose or fell."""
        lo, hi = self.two()
        is_good, rises = self.rng.random() < 0.75, self.rng.random() < 0.5
        what = self.pick(GAINS if is_good else LOSSES)
        a, b = (hi, lo) if rises else (lo, hi)
        verb, pct, per = self.pick(RISES if rises else FALLS), f"{self.rng.uniform(1, 60):.1f}%", self.pick(PERIODS)
        text = self.pick(
            [
                f"{what} {verb} to {a} from {b} {per}",
                f"{per} {what} {verb} {pct} to {a}",
                f"{what} {verb} by {pct} {per} and totalled {a}",
                f"{what} was {a} {per}, compared with {b} a year earlier",
                f"{what} amounted to {a}, {'up' if rises else 'down'} from {b} {per}",
                f"{self.pick(FIRMS)} said {what} {verb} {pct} {per}",
                f"{self.pick(FIRMS)} reported {what} of {a} {per}, versus {b} a year ago",
                f"{what} totalled {a}, against {b} in the corresponding period",
            ]
        )
        return text, POS if is_good == rises else NEG

    def turn(self) -> tuple[str, int]:
        """Return a turn from profit to loss or back."""
        lo, hi = self.two()
        to_profit = self.rng.random() < 0.5
        p, q = ("profit", "loss") if to_profit else ("loss", "profit")
        return self.pick(
            [
                f"{self.pick(FIRMS)} posted a net {p} of {lo} {self.pick(PERIODS)}, "
                f"compared to a {q} of {hi} a year earlier",
                f"{self.pick(FIRMS)} swung to a {p} of {lo} from a {q} of {hi}",
                f"{self.pick(FIRMS)} turned to a {p} {self.pick(PERIODS)}",
            ]
        ), POS if to_profit else NEG

    def event(self) -> tuple[str, int]:
        """Return something that happened to a firm."""
        label = self.pick([NEG, NEU, NEU, NEU, POS])
        firm, (amount, _) = self.pick(FIRMS), self.two()
        write = {POS: self.good_event, NEG: self.bad_event, NEU: self.plain_event}[label]
        return write(firm, amount), label

    def good_event(self, firm: str, amount: str) -> str:
        """Return good news."""
        return self.pick(
            [
                f"{firm} has won an order worth {amount}",
                f"{firm} raised its full-year guidance",
                f"{firm} signed a major contract with a new customer",
                f"{firm} beat analyst expectations",
                f"{firm} will hire {self.rng.randint(20, 900)} new employees to meet demand",
                f"{firm} raised its dividend",
                f"Analysts upgraded {firm} to buy",
                f"The deal strengthens {firm}'s position in the Nordic market",
                f"{firm} shares hit a record high",
                f"{firm} expects sales to grow this year",
                "The new plant will improve efficiency and lower costs",
            ]
        )

    def bad_event(self, firm: str, _amount: str) -> str:
        """Return bad news."""
        return self.pick(
            [
                f"{firm} will cut {self.rng.randint(20, 900)} jobs",
                f"{firm} issued a profit warning",
                f"{firm} lowered its full-year outlook",
                f"{firm} missed analyst expectations",
                f"{firm} is closing its plant and laying off staff",
                f"{firm} suspended its dividend",
                f"Analysts downgraded {firm} to sell",
                f"{firm} shares tumbled after weak results",
                f"{firm} faces a lawsuit over unpaid debts",
                f"{firm} filed for bankruptcy protection",
                f"{firm} expects demand to weaken further",
                f"The contract with {firm} was cancelled",
            ]
        )

    def plain_event(self, firm: str, amount: str) -> str:
        """Return news that is neither good nor bad."""
        return self.pick(
            [
                f"{firm} will publish its interim report on {self.rng.randint(1, 28)} "
                f"{self.pick(['May', 'August', 'October'])}",
                f"{firm} is based in {self.pick(['Helsinki', 'London', 'Austin', 'Oslo'])} "
                f"and employs {self.rng.randint(40, 9000)} people",
                f"{firm} and {self.pick(FIRMS)} did not say how much was paid",
                "No price was given for the purchase",
                f"{firm} appointed a new chief financial officer",
                f"{firm} will hold its annual general meeting in {self.pick(['March', 'April'])}",
                f"The share capital of {firm} totals {amount}",
                f"{firm} has a total of {self.rng.randint(1, 90)} offices in {self.rng.randint(2, 30)} countries",
                f"{firm} makes {self.pick(['valves', 'paper machines', 'software', 'tyres', 'medical devices'])}",
                f"The shares are listed on the {self.pick(['Nasdaq', 'Helsinki', 'London'])} exchange",
                f"The contract period is {self.rng.randint(2, 9)} years",
                f"{firm} holds {self.rng.randint(2, 98)} percent of the votes and shares",
                f"The project starts in {self.pick(['spring', 'June', '2012'])} and takes two years",
                f"{firm} is planning to build a {self.rng.randint(1, 90)} 000 square metre facility",
                f"{firm} acquired a unit of {self.pick(FIRMS)}",
                "Shareholders will vote on the board at the next meeting",
            ]
        )

    def product_fact(self) -> tuple[str, int]:
        """Return a plain fact about a product."""
        item = self.pick(
            [
                "The charger",
                "The jacket",
                "This phone",
                "The kettle",
                "The box",
                "The lamp",
                "The cable",
                "The bag",
                "The headset",
            ]
        )
        return self.pick(
            [
                f"{item} comes in {self.pick(['blue', 'three colours', 'two sizes'])}",
                f"{item} weighs {self.rng.randint(80, 900)} grams",
                f"{item} was delivered on {self.pick(['Monday', 'Tuesday', 'Friday'])}",
                f"{item} ships with a manual and a cable",
                f"I ordered {item.lower()} last week",
                f"{item} is {self.pick(['okay', 'average', 'fine, nothing special', 'neither good nor bad'])}",
                f"{item} is made of {self.pick(['plastic', 'steel', 'cotton'])}",
                f"Does {item.lower()} work with 220 volts?",
                f"It does what {item.lower()} should do, no more and no less",
                f"I have used {item.lower()} for a month",
            ]
        ), NEU


def synthetic(n: int, seed: int) -> list[tuple[str, int]]:
    """Return `n` sentences with their class, the same ones for the same seed."""
    rng = random.Random(seed)
    writer = Writer(rng)
    makers, weights = [writer.direction, writer.turn, writer.event, writer.product_fact], [0.45, 0.1, 0.33, 0.12]
    rows = []
    for _ in range(n):
        text, label = rng.choices(makers, weights)[0]()
        text = re.sub(r"\s+", " ", text).strip()
        rows.append((text[0].upper() + text[1:] + rng.choice([".", " .", ""]), label))
    return rows
