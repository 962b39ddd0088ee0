"""Build ftk://orders: sentences with an order in plain English, and the order as JSON.

    python scripts/build_orders.py            write ftk/data/orders/train.jsonl and eval.jsonl
    python scripts/build_orders.py --check    say whether the shipped files are what this script writes

Of the evaluation rows, 80 of 200 are `unseen`: their customer's names, item and city, and their sentence frame too,
occur in no training row. The other 120 are new combinations of what training has.
"""

import argparse
import datetime
import json
import random
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "ftk" / "data" / "orders"


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


def phrases(text: str) -> list[str]:
    """What stands between the commas of a text."""
    return text.split(",")


NUM_TRAIN, NUM_SEEN, NUM_UNSEEN = 2000, 120, 80
NUMBER_WORDS = words("two three four five six seven eight nine ten eleven twelve")
MONTHS = words("January February March April May June July August September October November December")

TRAIN = {
    "first": words(
        "Anna Ben Clara David Elena Felix Grace Hugo Irene Jonas Karin Louis Maria Nadia Oscar Paula Quentin "
        "Rosa Samuel Teresa Ulrich Vera Walter Yusuf Zoe Amir Bianca Carlos Dora Emil Fatima George Hanna "
        "Ivan Julia Kofi Linda Mateo Nora Omar Petra Ravi Sofia Tomas Ursula Victor Wendy Xavier Yara Simon "
        "Alice Bruno Chloe Daniel Esther Frank Gloria Henry Ingrid Jakob Aisha Albert Andrea Antonio "
        "Beatrice Bernard Camille Caspar Cecilia Diego Dominic Eduardo Elisa Enzo Eva Fabian Fiona Gabriel "
        "Georgia Gustav Hector Helena Ibrahim Irma Jasmin Joel Judith Kamal Kira Lars Laura Leila Lorenzo "
        "Lucas Magda Manuel Marek Martha Max Melanie Mina Monica Natalia Nikolai Noel Olivia Otto Pamela "
        "Philip Priya Rafael Rebecca Robert Sandra Sebastian Selma Silvia Thea Theodor Valentin"
    ),
    "last": words(
        "Bell Carter Dubois Evans Fischer Garcia Hansen Ibrahim Jensen Kowalski Lopez Moreau Novak Olsen "
        "Patel Quinn Rossi Schmidt Tanaka Ueda Vargas Weber Young Zimmer Andersen Brown Cohen Diaz Engel "
        "Ferrari Green Hughes Ivanova Johnson Khan Larsen Martin Nguyen Okafor Petrov Roberts Silva Taylor "
        "Ulman Vogel Walker Yilmaz Adams Becker Costa Dahl Ericsson Foster Gruber Haddad Iversen Jones "
        "Keller Lindgren Mendes Aalto Acosta Albrecht Alvarez Amato Arnold Baker Baldwin Barbosa Berger "
        "Blanc Brandt Bruno Byrne Cabrera Campbell Chandra Chen Collins Conti Cruz Curtis Dawson Doyle "
        "Duarte Farkas Fernando Fox Franke Fuchs Gallo Gibson Gonzalez Graham Grant Haas Hall Harris Hoffman "
        "Holm Howard Hunt Jankovic Kaya Kennedy King Klein Kovacs Kruger Lang Leclerc Lewis Lin Lund Malik "
        "Marino Mason Meyer Molina Moore"
    ),
    "item": phrases(
        "desk lamps,copper kettles,wool blankets,garden chairs,paper lanterns,glass vases,steel bolts,"
        "oak shelves,leather belts,silk scarves,coffee mugs,soup bowls,rubber boots,cotton towels,"
        "wall clocks,door handles,paint brushes,tea pots,picture frames,water bottles,bread knives,"
        "cork boards,kitchen scales,table mats,bath mats,bicycle pumps,light bulbs,office chairs,"
        "winter coats,straw hats,flower pots,metal hooks,fishing rods,tennis balls,travel bags,alarm clocks,"
        "candle holders,canvas bags,plastic crates,wooden spoons,notebooks,pencils,envelopes,umbrellas,"
        "pillows,mirrors,hammers,screwdrivers,ladders,buckets,curtains,carpets,helmets,gloves,baskets,trays,"
        "whistles,batteries,headphones,keyboards,cushions,toasters,printers,staplers,round tables,"
        "folding knives,cotton shirts,linen shirts,steel pipes,copper pipes,oak tables,pine shelves,"
        "leather wallets,leather gloves,paper cups,paper plates,glass jars,plastic cups,wool socks,"
        "wool scarves,silk ties,linen curtains,brass bells,brass hinges,iron nails,roof tiles,floor lamps,"
        "ceiling fans,hand towels,beach towels,running shoes,tennis rackets,chess boards,dog collars,"
        "cat beds,bird cages,fish tanks,plant stands,seed trays,watering cans,garden hoses,lawn rakes,"
        "snow shovels,ice trays,cake tins,baking sheets,salad bowls,wine racks,beer mugs,tea towels,"
        "salt mills,spice racks,egg timers,photo albums,post cards,gift boxes,wall maps,desk fans,"
        "file folders,rubber stamps,ink pens,chalk boards,white boards,tape rolls"
    ),
    "city": words(
        "Oslo Lisbon Vienna Dublin Madrid Prague Berlin Hamburg Lyon Geneva Milan Turin Porto Seville Bergen "
        "Malmo Helsinki Tallinn Riga Vilnius Warsaw Krakow Budapest Bucharest Athens Ankara Izmir Cairo "
        "Tunis Lagos Accra Nairobi Kampala Durban Mumbai Delhi Chennai Dhaka Bangkok Hanoi Manila Osaka "
        "Kyoto Seoul Busan Sydney Perth Auckland Toronto Montreal Boston Chicago Denver Houston Seattle Lima "
        "Bogota Santiago Havana Aberdeen Adelaide Algiers Amman Amsterdam Atlanta Baku Baltimore Barcelona "
        "Basel Beirut Belfast Belgrade Bern Birmingham Bologna Bordeaux Bremen Brisbane Bristol Brussels "
        "Calgary Cologne Copenhagen Cork Dallas Dresden Essen Frankfurt Gdansk Genoa Ghent Graz Haifa Harare "
        "Innsbruck Kabul Leeds Lille Linz Liverpool Ljubljana Luanda Lucerne Malaga Memphis Miami Minsk "
        "Monaco Munich Nantes Nice Odessa Omaha Palermo Portland Reykjavik Salzburg Tampa Valencia"
    ),
    "frame": [
        "Please send {quantity} {item} to {customer} in {city} by {date}.",
        "{customer} from {city} would like {quantity} {item}, delivered on {date}.",
        "Could you ship {quantity} {item} to {city} for {customer} before {date}?",
        "We need {quantity} {item} in {city} on {date}; the customer is {customer}.",
        "New order from {customer}: {quantity} {item}, to {city}, due {date}.",
        "On {date} {customer} expects {quantity} {item} in {city}.",
        "{customer} ordered {quantity} {item} for the shop in {city}, to arrive {date}.",
        "Book {quantity} {item} for {customer}, {city}, {date}.",
        "I am {customer} and I want {quantity} {item} sent to {city} by {date}.",
        "Deliver to {customer}, {city}: {quantity} {item}, not later than {date}.",
        "The office in {city} asks for {quantity} {item} on {date}, contact {customer}.",
        "{quantity} {item} for {customer} in {city}, please, by {date}.",
        "Can {customer} in {city} get {quantity} {item} by {date}?",
        "By {date} we must bring {quantity} {item} to {customer} in {city}.",
        "My name is {customer}, I live in {city} and need {quantity} {item} on {date}.",
        "Put down {quantity} {item} for {customer}, going to {city} on {date}.",
        "{customer} called from {city}: {quantity} {item}, please, for {date}.",
        "For {date}: {quantity} {item}, {customer}, {city}.",
        "Ship {customer} {quantity} {item}; the address is in {city}, the date {date}.",
        "A parcel with {quantity} {item} should reach {customer} in {city} on {date}.",
        "Hello, this is {customer} in {city}. I would like {quantity} {item} by {date}.",
        "To {city} on {date}: {quantity} {item} for {customer}.",
        "{customer} wants {quantity} {item}. Send them to {city} on {date}.",
        "Our branch in {city} sold {quantity} {item} to {customer}, delivery {date}.",
        "Reserve {quantity} {item} until {date} for {customer} of {city}.",
        "Order for {city}: {customer} takes {quantity} {item} on {date}.",
        "Would it be possible to have {quantity} {item} in {city} by {date}? Thanks, {customer}.",
        "{city}, {date}: {customer} is waiting for {quantity} {item}.",
        "As agreed, {quantity} {item} go to {customer} in {city} on {date}.",
        "Dear team, {customer} needs {quantity} {item} at the store in {city} on {date}.",
        "Send {customer} the {quantity} {item} by {date}, to {city} as usual.",
        "{customer} is opening a shop in {city} on {date} and orders {quantity} {item}.",
        "On behalf of {customer} I order {quantity} {item}, to be in {city} on {date}.",
        "Another {quantity} {item} for {customer} in {city}; they are due on {date}.",
        "It is urgent: {quantity} {item} to {city} by {date} for {customer}.",
        "In {city}, {customer} will pick up {quantity} {item} on {date}.",
        "Add {quantity} {item} to the truck for {city} on {date}, marked {customer}.",
        "We promised {customer} {quantity} {item} by {date}. Ship to {city}.",
        "{customer} just paid for {quantity} {item}; deliver in {city} on {date}.",
        "Until {date} there is time to send {quantity} {item} to {customer} in {city}.",
        "Note: {quantity} {item}, {city}, {date}, {customer}.",
        "The hotel in {city} run by {customer} needs {quantity} {item} from {date}.",
        "Good morning, {quantity} {item} to {city}, please. {date} is fine. Regards, {customer}",
        "{customer} moved to {city} and wants {quantity} {item} there on {date}.",
        "Set aside {quantity} {item}; {customer} collects them in {city} on {date}.",
        "Delivery on {date} in {city} of {quantity} {item} to {customer}.",
        "If you can, send {quantity} {item} to {customer}, {city}, before {date}.",
        "There is an order by {customer} for {quantity} {item} in {city}, date {date}.",
        "Let us deliver {quantity} {item} to {customer} on {date}; the town is {city}.",
        "Let the shop in {city} give {customer} {quantity} {item} on {date}.",
        "Kindly note: {quantity} {item} for {customer}, {city}, {date}.",
        "Kindly send to {city}, for {customer}, {quantity} {item} by {date}.",
        "An email from {customer}: {quantity} {item} to {city}, please, by {date}.",
        "A customer named {customer} in {city} wants {quantity} {item} on {date}.",
        "This is an order: {customer}, {city}, {quantity} {item}, {date}.",
        "Today we got an order for {quantity} {item} from {customer}, {city}, for {date}.",
        "Yesterday {customer} asked for {quantity} {item}, to be sent to {city} by {date}.",
        "Please pack {quantity} {item} for {city}. {customer} comes for them on {date}.",
        "Please label the box {customer}, {city}: {quantity} {item}, going out on {date}.",
        "Make it {quantity} {item} for {customer} on {date}, delivered in {city}.",
        "Be quick: {customer} in {city} needs {quantity} {item} by {date}.",
        "Hi, I am {customer}. Could you bring {quantity} {item} to {city} on {date}?",
        "Hi, we are in {city} and need {quantity} {item} by {date}. Ask for {customer}.",
        "Could I have {quantity} {item} on {date}? My name is {customer} and my town is {city}.",
        "The factory in {city} wants {quantity} {item} by {date}; write to {customer}.",
        "The next van to {city} takes {quantity} {item} for {customer} on {date}.",
        "The order of {customer} is {quantity} {item}; the place is {city} and the day {date}.",
        "Prepare for {date}: {customer} gets {quantity} {item} in {city}.",
        "Before {date} someone has to take {quantity} {item} to {customer} in {city}.",
        "After {date} it is too late for {customer} in {city}, who needs {quantity} {item}.",
        "{customer}, {city}, ordered {quantity} {item} for {date}.",
        "{customer}, our client in {city}, is to have {quantity} {item} by {date}.",
        "{customer}, who lives in {city}, will buy {quantity} {item} on {date}.",
        "{customer} has a stall in {city} and asks for {quantity} {item} on {date}.",
        "{customer} hopes to get {quantity} {item} before {date}; {city} is the address.",
        "{date} is when {quantity} {item} must reach {city}; {customer} will sign.",
        "{date}: send {quantity} {item} to {customer}, {city}.",
        "{city} again: {quantity} {item} for {customer}, this time on {date}.",
        "{city} is where {customer} wants {quantity} {item} on {date}.",
        "{quantity} {item} were ordered by {customer} for {city}, {date}.",
        "{quantity} {item}, please, to {city} before {date}. Best wishes, {customer}.",
        "I would like to order {quantity} {item} for {date}. I live in {city}. Yours, {customer}",
        "I need {quantity} {item} by {date} in {city}, and my name is {customer}.",
        "We have sold {quantity} {item} to {customer} in {city}; send them on {date}.",
        "We are to bring {customer} {quantity} {item} on {date}, all the way to {city}.",
        "They need {quantity} {item} in {city} on {date}, and {customer} pays.",
        "Someone called {customer} wants {quantity} {item} in {city} on {date}.",
        "Sir, please ship {quantity} {item} on {date} to {customer} in {city}.",
        "Thanks for sending {quantity} {item} to {city} by {date}. Greetings, {customer}.",
        "Do not forget the {quantity} {item} that {customer} wants in {city} on {date}.",
        "Remember {customer} in {city}: {quantity} {item} on {date}.",
        "Here is what {customer} of {city} ordered: {quantity} {item}, for {date}.",
        "Customer {customer}, town {city}, {quantity} {item}, day {date}.",
        "Request: {quantity} {item}. Place: {city}. Day: {date}. Name: {customer}.",
        "Write down {quantity} {item} for {customer}; {date}, in {city}.",
        "Take {quantity} {item} to {city} on {date} and hand them to {customer}.",
        "Have {quantity} {item} ready on {date}: {customer} drives to {city} with them.",
        "When {customer} is in {city} on {date}, {quantity} {item} should be there.",
        "Tell the driver that {customer} in {city} gets {quantity} {item} on {date}.",
        "Bring {customer} in {city} {quantity} {item} on {date}.",
    ],
}
UNSEEN = {
    "first": words(
        "Astrid Boris Celine Dmitri Edith Farid Greta Harald Isabel Jorge Katya Leon Miriam Nils Olga Pablo Ruth "
        "Stefan Tara Viktoria"
    ),
    "last": words(
        "Abbott Bauer Castro Delgado Eklund Fleming Gomez Horvat Ito Jansson Kaplan Lambert Murphy Nilsen Ortega "
        "Parker Ramos Sato Turner Wagner"
    ),
    "item": phrases(
        "bamboo stools,camping tents,ceramic jugs,hiking poles,guitar strings,frying pans,marble slabs,"
        "laundry pegs,atlases,nylon ropes,phone cases,puzzle cubes,reading glasses,sewing needles,shower caps,"
        "sun screens,tool kits,velvet ribbons,yoga straps,zip fasteners"
    ),
    "city": words(
        "Antwerp Bilbao Cardiff Dakar Edinburgh Florence Glasgow Jakarta Karachi Leipzig Marseille Naples Ottawa "
        "Phoenix Quito Rotterdam Stockholm Tokyo Utrecht Zagreb"
    ),
    "frame": [
        "Kindly have {quantity} {item} brought to {city} for {customer} on {date}.",
        "{customer}, who works in {city}, asked us for {quantity} {item} by {date}.",
        "Let {customer} have {quantity} {item} on {date}; the place is {city}.",
        "The next delivery to {city} is for {customer}: {quantity} {item}, {date}.",
        "I would be glad to receive {quantity} {item} in {city} before {date}. Yours, {customer}.",
        "We have a request from {customer} in {city} for {quantity} {item}, wanted on {date}.",
        "Before {date}, {quantity} {item} must be with {customer} in {city}.",
        "{customer} needs them in {city} on {date}: {quantity} {item}.",
        "Make sure that {quantity} {item} arrive in {city} on {date}, for {customer}.",
        "{date} is the day on which {customer} should get {quantity} {item} in {city}.",
        "Prepare {quantity} {item} for {customer}; the van to {city} leaves on {date}.",
        "Today {customer} wrote from {city} and asked for {quantity} {item} by {date}.",
        "Hi, could I get {quantity} {item}? I am in {city}, my name is {customer}, and {date} would suit me.",
        "Please pack {quantity} {item}, label them {customer}, {city}, and send them on {date}.",
        "The school in {city} needs {quantity} {item} by {date}; ask for {customer}.",
        "An order came in: {customer}, {quantity} {item}, {city}, {date}.",
    ],
}
Values = dict[str, list[str]]


def written(day: datetime.date, rng: random.Random) -> str:
    """The day as offices write it: 2026-03-04, 04 March 2026 or March 04, 2026."""
    month = MONTHS[day.month - 1]
    forms = [
        day.isoformat(),
        day.isoformat(),
        f"{day.day:02d} {month} {day.year}",
        f"{month} {day.day:02d}, {day.year}",
    ]
    return rng.choice(forms)


def order(values: Values, rng: random.Random) -> tuple[str, str]:
    """One sentence and its order as compact JSON; the day becomes ISO 8601, the quantity a number."""
    customer = f"{rng.choice(values['first'])} {rng.choice(values['last'])}"
    item, city = rng.choice(values["item"]), rng.choice(values["city"])
    quantity = rng.randint(2, rng.choice([12, 60, 250]))
    day = datetime.date(2025, 1, 1) + datetime.timedelta(days=rng.randrange(3 * 365))
    in_words = quantity <= 12 and rng.random() < 0.4
    told = NUMBER_WORDS[quantity - 2] if in_words else str(quantity)
    sentence = rng.choice(values["frame"]).format(
        customer=customer, item=item, city=city, quantity=told, date=written(day, rng)
    )
    answer = {"customer": customer, "item": item, "quantity": quantity, "city": city, "date": day.isoformat()}
    return sentence[0].upper() + sentence[1:], json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def rows(values: Values, rng: random.Random, *, num: int, unseen: bool, taken: set[str]) -> list[dict[str, object]]:
    """That many rows, none with a sentence in `taken`, to which theirs are added."""
    made: list[dict[str, object]] = []
    while len(made) < num:
        prompt, completion = order(values, rng)
        if prompt not in taken:
            taken.add(prompt)
            made.append({"prompt": prompt, "completion": completion, "unseen": unseen})
    return made


def build(seed: int) -> dict[str, str]:
    """Text of each file, by its name."""
    rng = random.Random(seed)
    taken: set[str] = set()
    train = rows(TRAIN, rng, num=NUM_TRAIN, unseen=False, taken=taken)
    held_out = rows(TRAIN, rng, num=NUM_SEEN, unseen=False, taken=taken)
    held_out += rows(UNSEEN, rng, num=NUM_UNSEEN, unseen=True, taken=taken)
    rng.shuffle(held_out)
    files = {"train.jsonl": train, "eval.jsonl": held_out}
    return {
        name: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content) for name, content in files.items()
    }


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the shipped files instead of writing")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    files = build(arguments.seed)
    if arguments.check:
        differing = [name for name, text in files.items() if (arguments.out / name).read_text(encoding="utf-8") != text]
        print(f"differs from what this script writes: {', '.join(differing)}" if differing else "as this script writes")
        return 1 if differing else 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (arguments.out / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
