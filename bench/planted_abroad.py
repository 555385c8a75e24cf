"""The same as `bench.planted_calls` in German, French and Spanish: names, values and sentences of these countries.

Numbers are spelled by `num2words`, and not by the tables that the detectors read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from num2words import num2words

from bench.planted_calls import KINDS, Call, Maker

#: Of many origins, some of the country and many of others, as people have them who call.
FOREIGN: Final = "Priya Olu Siobhan Wojciech Yusuf Xiomara Niamh Kwame Rashid Zoltan Dmitri Hamza Bjorn Lakshmi".split()
FOREIGN_LAST: Final = "Raghunathan Okonkwo Kowalczyk Brandtner Lindqvist Siddiqui Horvath Petrovic Nakamura".split()


@dataclass(frozen=True)
class Speech:
    """How people of a country tell their data. `{%s}` is the value."""

    language: str
    region: str
    first: tuple[str, ...]
    last: tuple[str, ...]
    fillers: tuple[str, ...]
    plain: tuple[str, ...]
    #: By kind, the sentences.
    sentences: dict[str, tuple[str, ...]]
    #: Of names: with first and last name, with a first name, with a last name; and spelled.
    full: tuple[str, ...]
    only_first: tuple[str, ...]
    only_last: tuple[str, ...]
    spelled: tuple[str, ...]
    #: Beginnings of telephone numbers with the digits that follow; how they are written, in groups.
    phones: tuple[tuple[str, int], ...]
    phone_groups: tuple[int, ...]
    #: What an IBAN begins with, and digits behind its check digits.
    iban: tuple[str, int]
    #: Digits of the country's number of persons, and its groups.
    person: tuple[int, ...]
    streets: tuple[str, ...]
    #: An address of street, house number, postal code and city.
    address: tuple[str, ...]
    cities: tuple[tuple[str, str], ...]
    months: tuple[str, ...]
    #: Dates: of day, month and year, said and written; the day said as an ordinal in German.
    said_date: str
    written_dates: tuple[str, ...]
    at: str
    dot: str
    underscore: str
    endings: tuple[str, ...]
    double: str
    dash: str


class MakerAbroad(Maker):
    """Makes calls in another language."""

    def __init__(self, speech: Speech, seed: int) -> None:
        super().__init__(seed)
        self.speech, self.plain = speech, speech.plain

    def said(self, number: int) -> str:
        """A number in words."""
        return str(num2words(number, lang=self.speech.language))

    def one(self, digit: str) -> str:
        """One digit."""
        return self.said(int(digit))

    def spoken_digits(self, digits: str, group: int = 4) -> str:
        """Digits one by one, in pairs or in threes, with hesitations."""
        style = self.random.choice((1, 1, 2, 2 if self.speech.language == "de" else 3))
        words: list[str] = []
        at = 0
        while at < len(digits):
            if at and at % group == 0 and self.random.random() < 0.25:
                words.append(self.pick(*self.speech.fillers))
            part = digits[at : at + style]
            if len(part) == 2 and part[0] == part[1] and self.random.random() < 0.3 and self.speech.double:
                words += [self.speech.double, self.one(part[0])]
            elif len(part) == style > 1 and part[0] != "0":
                words.append(self.said(int(part)))
            else:
                words += map(self.one, part)
            at += len(part)
        return " ".join(words)

    def sentence(self, kind: str, value: str) -> str:
        """One of the kind's sentences, with this value."""
        return self.pick(*self.speech.sentences[kind]) % value

    def value(self, number: str, sizes: Sequence[int], *, spoken: bool) -> str:
        """Digits, said or in groups."""
        return self.spoken_digits(number) if spoken else self.grouped(number, sizes)

    def card(self, *, spoken: bool) -> str:
        """See `Maker`."""
        sentence = super().card(spoken=spoken)  # of which only the value is used
        return self.sentence("card", sentence[sentence.index("{") + 1 : sentence.index("}")])

    def security_code(self, *, spoken: bool) -> str:
        """See `Maker`."""
        number = self.digits(self.random.choice((3, 4, 6)))
        return self.sentence("security_code", self.spoken_digits(number) if spoken else number)

    def iban(self, *, spoken: bool) -> str:
        """See `Maker`."""
        country, size = self.speech.iban
        body = self.digits(size)
        rest = int("".join(str(int(c, 36)) for c in body + country + "00")) % 97
        iban = f"{country}{98 - rest:02}{body}"
        if spoken:
            return self.sentence("iban", f"{self.letters(country)} {self.spoken_digits(iban[2:])}")
        grouped = " ".join(iban[n : n + 4] for n in range(0, len(iban), 4))
        return self.sentence("iban", self.pick(iban, grouped))

    def account(self, *, spoken: bool) -> str:
        """See `Maker`."""
        number = self.digits(self.random.choice((8, 9, 10)))
        return self.sentence("account", self.spoken_digits(number, 3) if spoken else number)

    def ssn(self, *, spoken: bool) -> str:
        """The country's number of a person."""
        sizes = self.speech.person
        return self.sentence("ssn", self.value(self.digits(sum(sizes)), sizes, spoken=spoken))

    def phone(self, *, spoken: bool) -> str:
        """See `Maker`."""
        begin, rest = self.pick(*self.speech.phones)
        number = begin + str(self.random.randint(1, 9)) + "".join(self.random.choices("0123456789", k=rest - 1))
        sizes = [*self.speech.phone_groups, len(number)]
        value = self.spoken_digits(number, 3) if spoken else self.grouped(number, sizes, (" ", "", "-", "/"))
        return self.sentence("phone", value)

    def email(self, *, spoken: bool) -> str:
        """See `Maker`."""
        speech = self.speech
        first, last = (self.plain_name(self.pick(*names)) for names in (speech.first, speech.last))
        domain, ending = self.pick("gmail", "outlook", "nordwind", "free"), self.pick(*speech.endings)
        if not spoken:
            local = self.pick(f"{first}.{last}", f"{first[0]}{last}{self.digits(2)}", f"{last}_{first}")
            return self.sentence("email", f"{local}@{domain}.{ending}")
        local = self.pick(f"{first} {speech.dot} {last}", f"{first[0]} {last} {self.spoken_digits(self.digits(2))}",
                          f"{first} {speech.underscore} {last}", " ".join(last), f"{first}{last}")  # fmt: skip
        return self.sentence("email", f"{local} {speech.at} {domain} {speech.dot} {ending}")

    def plain_name(self, name: str) -> str:
        """As in an address."""
        umlauts = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "é": "e", "è": "e", "ñ": "n", "á": "a",
                                 "í": "i", "ó": "o", "ú": "u", "ç": "c", "-": "", "'": "", " ": ""})  # fmt: skip
        return name.lower().translate(umlauts)

    def address(self, *, spoken: bool) -> str:
        """See `Maker`."""
        house, (code, city) = str(self.random.randint(2, 189)), self.pick(*self.speech.cities)
        number, said = (self.said(int(house)), self.spoken_digits(code, 9)) if spoken else (house, code)
        street = self.pick(*self.speech.streets)
        value = self.pick(*self.speech.address).format(street=street, house=number, code=said, city=city)
        return self.sentence("address", value)

    def date_of_birth(self, *, spoken: bool) -> str:
        """See `Maker`."""
        year, month, day = self.random.randint(1935, 2004), self.random.randint(1, 12), self.random.randint(2, 28)
        speech = self.speech
        if spoken:
            is_german = speech.language == "de"
            said_day = f"{num2words(day, lang='de', to='ordinal')}n" if is_german else self.said(day)
            said_year = num2words(year, lang="de", to="year") if is_german else self.said(year)
            value = speech.said_date.format(day=said_day, month=speech.months[month - 1], year=said_year)
        else:
            written = self.pick(*speech.written_dates)
            value = written.format(day=day, month=month, year=year, name=speech.months[month - 1])
        return self.sentence("date_of_birth", value)

    def name(self, *, spoken: bool) -> str:
        """See `Maker`."""
        speech = self.speech
        first = self.pick(*speech.first, *FOREIGN)
        last = self.pick(*speech.last, *FOREIGN_LAST)
        if spoken:
            return self.pick(*speech.spelled) % f"{last}, {self.letters(last.replace('-', '').replace(' ', ''))}"
        kind = self.random.random()
        if kind < 0.55:
            return self.pick(*speech.full) % f"{first} {last}"
        return self.pick(*speech.only_first) % first if kind < 0.8 else self.pick(*speech.only_last) % last

    def id(self, *, spoken: bool) -> str:
        """See `Maker`."""
        return self.sentence("id", self.code(spoken=spoken))

    def customer(self, *, spoken: bool) -> str:
        """See `Maker`."""
        digits = self.digits(6)
        dash = self.pick(f"{self.speech.dash} ", "")
        return self.sentence("CUSTOMER", f"K D {dash}{self.spoken_digits(digits, 9)}" if spoken else f"KD-{digits}")


GERMAN: Final = Speech(
    language="de",
    region="DE",
    first=("Anneliese", "Jürgen", "Sabine", "Björn", "Katharina", "Torsten", "Gülcan", "Heinz", "Mia", "Friederike"),
    last=("Müller", "Schäfer", "Weißgerber", "Hagenbeck", "Öztürk", "Krüger", "Zimmermann", "Oberhuber", "Straub"),
    fillers=("äh", "ähm", "ja", "okay", "dann"),
    plain=(
        "Wir haben 2019 und 2020 insgesamt 150.000 Stück geliefert, das sind 12,5 Prozent mehr.",
        "Die Rechnung war über 1.284,50 Euro und um 10:30 Uhr fällig.",
        "Bleiben Sie bitte zwei oder drei Minuten in der Leitung, ich sehe nach.",
        "Der Umsatz lag bei 4,2 Milliarden Euro im vierten Quartal.",
        "Ich habe das Galaxy S24 im letzten Sommer gekauft und der Bildschirm ist schon zweimal gebrochen.",
        "Ihre nächste Zahlung von fünfundvierzig Euro ist am fünfzehnten des Monats fällig.",
        "Vor mir standen hundertzwanzig Leute in der Schlange.",
        "Ich bin seit 2011 Kunde und hatte nie so ein Problem.",
        "Die Lieferung dauert fünf bis sieben Werktage, manchmal zehn.",
        "Darf ich fragen, warum Sie den Vertrag kündigen möchten?",
        "Am Wochenende werden es zwanzig bis dreißig Grad.",
        "Kann ich sonst noch etwas für Sie tun heute Nachmittag?",
        "Der Zug fährt um sechs Uhr fünfundvierzig und ist gegen neun da.",
        "Wir sind in einem Jahr von zweitausend auf dreitausend Mitarbeiter gewachsen.",
        "Der Kredit hat einen Zins von 3,75 Prozent auf dreißig Jahre.",
        "Das Gerät steht in der Küche neben dem Fenster und blinkt nur noch rot.",
    ),
    sentences={
        "card": ("Meine Kartennummer ist {%s}, danke.", "Es ist eine Visa, {%s}.",
                 "Können Sie {%s} belasten, bitte?", "Gern, die Nummer lautet {%s}."),
        "security_code": ("Die Prüfziffer auf der Rückseite ist {%s}.", "Meine PIN ist {%s}.",
                          "Der Sicherheitscode lautet {%s}, oder?", "Der Bestätigungscode war {%s}."),
        "iban": ("Die IBAN lautet {%s}.", "Überweisen Sie bitte an {%s}, das ist meine Bank.",
                 "Nehmen Sie dafür die {%s}."),
        "account": ("Meine Kontonummer ist {%s}.", "Das Konto hat die Nummer {%s}, glaube ich.",
                    "Es geht vom Girokonto {%s} ab.", "Also das ist die {%s} bei meiner Bank."),
        "ssn": ("Meine Steuernummer ist {%s}.", "Die Sozialversicherungsnummer lautet {%s}.",
                "Meine Steuer-ID ist {%s}."),
        "phone": ("Sie erreichen mich unter {%s}.", "Meine Handynummer ist {%s}.", "Rufen Sie mich an unter {%s}, ja?",
                  "Die beste Nummer ist {%s}."),
        "email": ("Meine E-Mail ist {%s}.", "Schicken Sie es an {%s}, bitte.", "Sie können an {%s} schreiben.",
                  "Die hinterlegte Adresse ist {%s}."),
        "address": ("Ich wohne in der {%s}.", "Bitte liefern Sie an {%s}.", "Die Rechnungsadresse ist {%s}."),
        "date_of_birth": ("Mein Geburtsdatum ist der {%s}.", "Ich bin geboren am {%s}.",
                          "Und Ihr Geburtstag? Das ist der {%s}."),
        "id": ("Die Versicherungsnummer ist {%s}.", "Meine Ausweisnummer lautet {%s}.", "Der Schadensfall ist {%s}.",
               "Die Auftragsnummer, die ich bekommen habe, war {%s}.", "Mein Führerschein hat die {%s}."),
        "CUSTOMER": ("Meine Kundennummer ist {%s}.", "Auf dem Brief steht {%s}."),
    },
    full=("Mein Name ist {%s}.", "Hier spricht {%s} aus München.", "Danke, {%s}, einen Moment.",
          "Ich habe gestern mit {%s} gesprochen.", "Guten Tag, ich bin {%s}, wie kann ich helfen?", "Ich heiße {%s}."),
    only_first=("Hallo, hier ist {%s}.", "Ich heiße {%s}.", "Danke, {%s}, bis dann.", "Mein Vorname ist {%s}."),
    only_last=("Ist Herr {%s} da?", "Ich habe mit Frau {%s} gesprochen.", "Doktor {%s} hat mich geschickt."),
    spelled=("Mein Nachname ist {%s}.", "Es läuft auf den Namen {%s}."),
    phones=(("0151", 8), ("0176", 8), ("0160", 7), ("030", 8), ("089", 7), ("0221", 7)),
    phone_groups=(4,),
    iban=("DE", 18),
    person=(2, 3, 3, 3),
    streets=("Hauptstraße", "Goethestraße", "Am Alten Markt", "Lange Gasse", "Birkenweg", "Berliner Allee",
             "Karl-Marx-Platz", "Schillerstr."),
    address=("{street} {house}, {code} {city}", "{street} {house} in {code} {city}", "{street} {house}, {code} {city}"),
    cities=(("10115", "Berlin"), ("80331", "München"), ("50667", "Köln"), ("60311", "Frankfurt"), ("04109", "Leipzig")),
    months=("Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November",
            "Dezember"),
    said_date="{day} {month} {year}",
    written_dates=("{day:02}.{month:02}.{year}", "{day}. {name} {year}", "{day}.{month}.{year}"),
    at="at",
    dot="Punkt",
    underscore="Unterstrich",
    endings=("de", "com", "net"),
    double="doppel",
    dash="Bindestrich",
)  # fmt: skip

FRENCH: Final = Speech(
    language="fr",
    region="FR",
    first=("Geneviève", "Thibault", "Aïcha", "Jean-Luc", "Mathilde", "Loïc", "Solène", "Hervé", "Manon", "Karim"),
    last=("Dupont", "Lefèvre", "Benali", "Chastagnier", "Rousseau", "Le Gall", "Fontaine", "Desrochers", "Marchand"),
    fillers=("euh", "ben", "oui", "alors", "puis"),
    plain=(
        "Nous avons livré 150 000 unités en 2019 et 2020, soit 12,5 pour cent de plus.",
        "La facture était de 1 284,50 euros et elle était due à 10h30.",
        "Restez en ligne deux ou trois minutes, je vérifie.",
        "Le chiffre d'affaires était de 4,2 milliards d'euros au quatrième trimestre.",
        "J'ai acheté le Galaxy S24 cet été et l'écran s'est déjà cassé deux fois.",
        "Votre prochain paiement de quarante-cinq euros est prévu le quinze du mois.",
        "Il y avait cent vingt personnes devant moi dans la file.",
        "Je suis client depuis 2011 et je n'ai jamais eu ce problème.",
        "La livraison prend cinq à sept jours ouvrés, parfois dix.",
        "Puis-je vous demander pourquoi vous voulez résilier le contrat ?",
        "Il fera entre vingt et trente degrés ce week-end.",
        "Est-ce que je peux faire autre chose pour vous cet après-midi ?",
        "Le train part à six heures quarante-cinq et arrive vers neuf heures.",
        "Nous sommes passés de deux mille à trois mille salariés en un an.",
        "Le prêt est à 3,75 pour cent sur trente ans.",
        "L'appareil est dans la cuisine à côté de la fenêtre et il clignote en rouge.",
    ),
    sentences={
        "card": ("Mon numéro de carte est le {%s}, merci.", "C'est une Visa, {%s}.",
                 "Pouvez-vous débiter la {%s} s'il vous plaît ?", "Bien sûr, le numéro est {%s}."),
        "security_code": ("Le code de sécurité au dos est {%s}.", "Mon code confidentiel est {%s}.",
                          "Le cryptogramme est {%s}, c'est ça ?", "Le code PIN était {%s}."),
        "iban": ("L'IBAN est {%s}.", "Envoyez-le sur {%s}, c'est ma banque.", "Vous pouvez utiliser {%s} pour ça."),
        "account": ("Mon numéro de compte est {%s}.", "Le compte a le numéro {%s}, je crois.",
                    "Ça vient du compte courant {%s}.", "Donc c'est le {%s} dans ma banque."),
        "ssn": ("Mon numéro de sécurité sociale est {%s}.", "Le numéro fiscal est {%s}.", "Ma sécu, c'est {%s}."),
        "phone": ("Vous pouvez me rappeler au {%s}.", "Mon portable est le {%s}.", "Appelez-moi au {%s}, d'accord ?",
                  "Le meilleur numéro est le {%s}."),
        "email": ("Mon mail est {%s}.", "Envoyez-le à {%s}, merci.", "Vous pouvez écrire à {%s}.",
                  "L'adresse enregistrée est {%s}."),
        "address": ("J'habite au {%s}.", "Livrez au {%s}, merci.", "L'adresse de facturation est {%s}."),
        "date_of_birth": ("Ma date de naissance est le {%s}.", "Je suis né le {%s}.",
                          "Et votre anniversaire ? C'est le {%s}."),
        "id": ("Le numéro de contrat est {%s}.", "Mon numéro de passeport est {%s}.", "Le sinistre est le {%s}.",
               "La référence qu'on m'a donnée était {%s}.", "Mon permis de conduire est le {%s}."),
        "CUSTOMER": ("Mon numéro client est {%s}.", "Il y a écrit {%s} sur le courrier."),
    },
    full=("Je m'appelle {%s}.", "Bonjour, {%s} à l'appareil.", "Merci, {%s}, un instant.",
          "J'ai parlé avec {%s} hier.", "Bonjour, je suis {%s}, que puis-je faire ?", "Mon nom est {%s}."),
    only_first=("Bonjour, ici {%s}.", "Je m'appelle {%s}.", "Merci, {%s}, à bientôt.", "Mon prénom est {%s}."),
    only_last=("Est-ce que monsieur {%s} est là ?", "J'ai parlé à madame {%s}.", "Le docteur {%s} m'a envoyé."),
    spelled=("Mon nom de famille est {%s}.", "C'est au nom de {%s}."),
    phones=(("06", 8), ("07", 8), ("01", 8), ("04", 8)),
    phone_groups=(2, 2, 2, 2),
    iban=("FR", 23),
    person=(1, 2, 2, 2, 3, 3),
    streets=("rue de la République", "avenue Victor Hugo", "boulevard Voltaire", "place du Marché", "chemin des Vignes",
             "rue Saint-Honoré", "impasse des Lilas", "quai de Bercy"),
    address=("{house} {street}, {code} {city}", "{house} {street} à {code} {city}",
             "{house} bis {street}, {code} {city}"),
    cities=(("75011", "Paris"), ("69003", "Lyon"), ("33000", "Bordeaux"), ("13008", "Marseille"), ("59800", "Lille")),
    months=("janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre", "novembre",
            "décembre"),
    said_date="{day} {month} {year}",
    written_dates=("{day:02}/{month:02}/{year}", "{day} {name} {year}"),
    at="arobase",
    dot="point",
    underscore="underscore",
    endings=("fr", "com", "net"),
    double="double",
    dash="tiret",
)  # fmt: skip

SPANISH: Final = Speech(
    language="es",
    region="ES",
    first=("Guadalupe", "Íñigo", "Soledad", "Jordi", "Ximena", "Rubén", "Itziar", "Joaquín", "Lucía", "Hernán"),
    last=("García", "Muñoz", "Etxeberria", "Castellanos", "Ibáñez", "Montenegro", "Quispe", "De la Fuente",
          "Villanueva"),
    fillers=("eh", "este", "sí", "bueno", "luego"),
    plain=(
        "Enviamos 150.000 unidades en 2019 y 2020, que es un 12,5 por ciento más.",
        "La factura era de 1.284,50 euros y vencía a las 10:30 de la mañana.",
        "Le pongo en espera dos o tres minutos mientras lo compruebo.",
        "Los ingresos fueron de 4,2 millones de euros en el cuarto trimestre.",
        "Compré el Galaxy S24 el verano pasado y la pantalla se ha roto dos veces.",
        "Su próximo pago de cuarenta y cinco euros es el quince de este mes.",
        "Había ciento veinte personas en la cola delante de mí.",
        "Soy cliente desde 2011 y nunca he tenido un problema así.",
        "La entrega tarda de cinco a siete días laborables, a veces diez.",
        "¿Puedo preguntar por qué quiere cancelar el contrato?",
        "El fin de semana hará entre veinte y treinta grados.",
        "¿Hay algo más en lo que pueda ayudarle esta tarde?",
        "El tren sale a las seis cuarenta y cinco y llega sobre las nueve.",
        "Pasamos de dos mil a tres mil empleados en un año.",
        "El préstamo tiene un interés del 3,75 por ciento a treinta años.",
        "El aparato está en la cocina al lado de la ventana y parpadea en rojo.",
    ),
    sentences={
        "card": ("Mi número de tarjeta es el {%s}, gracias.", "Es una Visa, {%s}.",
                 "¿Puede cobrar en la {%s} por favor?", "Claro, el número es {%s}."),
        "security_code": ("El código de seguridad de atrás es {%s}.", "Mi PIN es {%s}.", "El CVV es {%s}, ¿verdad?",
                          "El código de verificación era {%s}."),
        "iban": ("El IBAN es {%s}.", "Envíelo a {%s}, es mi banco.", "Puede usar {%s} para eso."),
        "account": ("Mi número de cuenta es {%s}.", "La cuenta tiene el número {%s}, creo.",
                    "Sale de la cuenta corriente {%s}.", "Pues es la {%s} en mi banco."),
        "ssn": ("Mi número de la seguridad social es {%s}.", "El número de afiliación es {%s}.",
                "La seguridad social es {%s}."),
        "phone": ("Puede llamarme al {%s}.", "Mi móvil es el {%s}.", "Llámeme al {%s}, por favor.",
                  "El mejor número es el {%s}."),
        "email": ("Mi correo es {%s}.", "Mándelo a {%s}, por favor.", "Puede escribir a {%s}.",
                  "La dirección registrada es {%s}."),
        "address": ("Vivo en la {%s}.", "Envíelo a la {%s}.", "La dirección de facturación es {%s}."),
        "date_of_birth": ("Mi fecha de nacimiento es el {%s}.", "Nací el {%s}.", "¿Y su cumpleaños? Es el {%s}."),
        "id": ("El número de póliza es {%s}.", "Mi número de pasaporte es {%s}.", "El siniestro es el {%s}.",
               "La referencia que me dieron era {%s}.", "Mi permiso de conducir es el {%s}."),
        "CUSTOMER": ("Mi número de cliente es {%s}.", "En la carta pone {%s}."),
    },
    full=("Me llamo {%s}.", "Le habla {%s} de Madrid.", "Gracias, {%s}, un momento.", "Hablé con {%s} ayer.",
          "Hola, soy {%s}, ¿en qué puedo ayudarle?", "Mi nombre es {%s}."),
    only_first=("Hola, soy {%s}.", "Me llamo {%s}.", "Gracias, {%s}, hasta luego.", "Mi nombre es {%s}."),
    only_last=("¿Está el señor {%s}?", "Hablé con la señora {%s}.", "La doctora {%s} me ha enviado."),
    spelled=("Mi apellido es {%s}.", "Está a nombre de {%s}."),
    phones=(("6", 8), ("7", 8), ("91", 7), ("93", 7)),
    phone_groups=(3, 3),
    iban=("ES", 20),
    person=(2, 8, 2),
    streets=("calle Mayor", "avenida de la Constitución", "plaza de España", "paseo de Gracia", "calle San Bernardo",
             "carretera de Valencia", "calle de los Reyes Católicos", "ronda del Sur"),
    address=("{street} {house}, {code} {city}", "{street}, número {house}, {code} {city}",
             "{street} {house} en {city}"),
    cities=(("28013", "Madrid"), ("08007", "Barcelona"), ("41001", "Sevilla"), ("46002", "Valencia"),
            ("50003", "Zaragoza")),
    months=("enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre",
            "noviembre", "diciembre"),
    said_date="{day} de {month} de {year}",
    written_dates=("{day:02}/{month:02}/{year}", "{day} de {name} de {year}"),
    at="arroba",
    dot="punto",
    underscore="guion bajo",
    endings=("es", "com", "net"),
    double="doble",
    dash="guion",
)  # fmt: skip

SPEECHES: Final = {speech.language: speech for speech in (GERMAN, FRENCH, SPANISH)}


def calls_abroad(language: str, count: int = 500, seed: int = 11) -> list[Call]:
    """Calls in this language with three values each, of all kinds in turn."""
    maker = MakerAbroad(SPEECHES[language], seed)
    return [maker.call([KINDS[(3 * number + n) % len(KINDS)] for n in range(3)]) for number in range(count)]
