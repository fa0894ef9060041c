"""Sentences written by rule, ours.

They teach what tweets rarely say: the direction of a number ("fell to 3.1 from 4.2"), losses that narrow, plain
corporate facts, product facts. With a seed that was not trained on they also measure how far a stored model strays.
"""

from __future__ import annotations

import random
import re

from training.sentiment.labels import NEG, NEU, POS


def synthetic(n: int, seed: int) -> list[tuple[str, int]]:
    """Return `n` sentences with their class, the same ones for the same seed."""
    rng = random.Random(seed)
    pick = rng.choice
    firms = [
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
    good = [
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
    bad = [
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
    up = ["rose", "increased", "grew", "climbed", "jumped", "was up", "surged", "improved", "went up"]
    down = ["fell", "decreased", "dropped", "declined", "slumped", "was down", "slid", "shrank", "went down"]
    unit = ["EUR {} mn", "EUR{}m", "USD {} million", "${} billion", "SEK {}m", "GBP {} million", "{} million euros"]
    period = [
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

    def two() -> tuple[str, str]:
        u, a = pick(unit), rng.uniform(0.5, 900)
        b = a * rng.uniform(1.03, 2.2)
        low, high = (u.format(f"{v:.1f}" if v < 100 else f"{v:.0f}") for v in (a, b))
        return low, high

    def direction() -> tuple[str, int]:
        lo, hi = two()
        is_good, rises = rng.random() < 0.75, rng.random() < 0.5
        what = pick(good if is_good else bad)
        a, b = (hi, lo) if rises else (lo, hi)
        verb, pct, per = pick(up if rises else down), f"{rng.uniform(1, 60):.1f}%", pick(period)
        text = pick(
            [
                f"{what} {verb} to {a} from {b} {per}",
                f"{per} {what} {verb} {pct} to {a}",
                f"{what} {verb} by {pct} {per} and totalled {a}",
                f"{what} was {a} {per}, compared with {b} a year earlier",
                f"{what} amounted to {a}, {'up' if rises else 'down'} from {b} {per}",
                f"{pick(firms)} said {what} {verb} {pct} {per}",
                f"{pick(firms)} reported {what} of {a} {per}, versus {b} a year ago",
                f"{what} totalled {a}, against {b} in the corresponding period",
            ]
        )
        return text, POS if is_good == rises else NEG

    def turn() -> tuple[str, int]:
        lo, hi = two()
        to_profit = rng.random() < 0.5
        p, q = ("profit", "loss") if to_profit else ("loss", "profit")
        return pick(
            [
                f"{pick(firms)} posted a net {p} of {lo} {pick(period)}, compared to a {q} of {hi} a year earlier",
                f"{pick(firms)} swung to a {p} of {lo} from a {q} of {hi}",
                f"{pick(firms)} turned to a {p} {pick(period)}",
            ]
        ), POS if to_profit else NEG

    def event() -> tuple[str, int]:
        y = pick([NEG, NEU, NEU, NEU, POS])
        f, (lo, _) = pick(firms), two()
        if y == POS:
            t = pick(
                [
                    f"{f} has won an order worth {lo}",
                    f"{f} raised its full-year guidance",
                    f"{f} signed a major contract with a new customer",
                    f"{f} beat analyst expectations",
                    f"{f} will hire {rng.randint(20, 900)} new employees to meet demand",
                    f"{f} raised its dividend",
                    f"Analysts upgraded {f} to buy",
                    f"The deal strengthens {f}'s position in the Nordic market",
                    f"{f} shares hit a record high",
                    f"{f} expects sales to grow this year",
                    "The new plant will improve efficiency and lower costs",
                ]
            )
        elif y == NEG:
            t = pick(
                [
                    f"{f} will cut {rng.randint(20, 900)} jobs",
                    f"{f} issued a profit warning",
                    f"{f} lowered its full-year outlook",
                    f"{f} missed analyst expectations",
                    f"{f} is closing its plant and laying off staff",
                    f"{f} suspended its dividend",
                    f"Analysts downgraded {f} to sell",
                    f"{f} shares tumbled after weak results",
                    f"{f} faces a lawsuit over unpaid debts",
                    f"{f} filed for bankruptcy protection",
                    f"{f} expects demand to weaken further",
                    f"The contract with {f} was cancelled",
                ]
            )
        else:
            t = pick(
                [
                    f"{f} will publish its interim report on {rng.randint(1, 28)} {pick(['May', 'August', 'October'])}",
                    f"{f} is based in {pick(['Helsinki', 'London', 'Austin', 'Oslo'])} "
                    f"and employs {rng.randint(40, 9000)} people",
                    f"{f} and {pick(firms)} did not say how much was paid",
                    "No price was given for the purchase",
                    f"{f} appointed a new chief financial officer",
                    f"{f} will hold its annual general meeting in {pick(['March', 'April'])}",
                    f"The share capital of {f} totals {lo}",
                    f"{f} has a total of {rng.randint(1, 90)} offices in {rng.randint(2, 30)} countries",
                    f"{f} makes {pick(['valves', 'paper machines', 'software', 'tyres', 'medical devices'])}",
                    f"The shares are listed on the {pick(['Nasdaq', 'Helsinki', 'London'])} exchange",
                    f"The contract period is {rng.randint(2, 9)} years",
                    f"{f} holds {rng.randint(2, 98)} percent of the votes and shares",
                    f"The project starts in {pick(['spring', 'June', '2012'])} and takes two years",
                    f"{f} is planning to build a {rng.randint(1, 90)} 000 square metre facility",
                    f"{f} acquired a unit of {pick(firms)}",
                    "Shareholders will vote on the board at the next meeting",
                ]
            )
        return t, y

    def product_fact() -> tuple[str, int]:
        item = pick(
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
        return pick(
            [
                f"{item} comes in {pick(['blue', 'three colours', 'two sizes'])}",
                f"{item} weighs {rng.randint(80, 900)} grams",
                f"{item} was delivered on {pick(['Monday', 'Tuesday', 'Friday'])}",
                f"{item} ships with a manual and a cable",
                f"I ordered {item.lower()} last week",
                f"{item} is {pick(['okay', 'average', 'fine, nothing special', 'neither good nor bad'])}",
                f"{item} is made of {pick(['plastic', 'steel', 'cotton'])}",
                f"Does {item.lower()} work with 220 volts?",
                f"It does what {item.lower()} should do, no more and no less",
                f"I have used {item.lower()} for a month",
            ]
        ), NEU

    makers, weights = [direction, turn, event, product_fact], [0.45, 0.1, 0.33, 0.12]
    rows = []
    for _ in range(n):
        text, y = rng.choices(makers, weights)[0]()
        text = re.sub(r"\s+", " ", text).strip()
        rows.append((text[0].upper() + text[1:] + pick([".", " .", ""]), y))
    return rows
