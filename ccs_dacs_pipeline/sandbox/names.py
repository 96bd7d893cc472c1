"""Words to put names and addresses together: common given and family names of many scripts, no real person."""

# ruff: noqa: RUF001 - letters of other scripts that look like Latin ones are what this is about

from typing import NamedTuple


class Script(NamedTuple):
    """Given and family names of one language, and how often it is chosen among people."""

    weight: int
    given: tuple[str, ...]
    family: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SCRIPTS = (
    Script(
        560,
        _words(
            "John Mary James Linda Robert Susan Michael Karen David Nancy William Lisa Thomas Sandra Charles Ashley "
            "Daniel Emily Matthew Donna Anthony Michelle Mark Carol Steven Amanda Paul Melissa Andrew Deborah Joshua "
            "Rebecca Kevin Laura Brian Sharon George Cynthia Edward Kathleen Ronald Amy Jason Angela Mary-Ann D'Arcy"
        ),
        _words(
            "Smith Johnson Williams Brown Jones Miller Davis Wilson Anderson Thomas Taylor Moore Jackson Martin Lee "
            "Thompson White Harris Clark Lewis Robinson Walker Young Allen King Wright Scott Hill Green Adams Baker "
            "Nelson Carter Mitchell Roberts Turner Phillips Campbell Parker Evans Edwards Collins O'Brien O'Neill "
            "Smith-Jones McDonald St.John Walker-Hughes D'Souza Okafor Adeyemi Nguyen Patel Singh"
        ),
    ),
    Script(
        170,
        _words("José María Juan Ángel Sofía Andrés Inés Raúl Lucía Óscar Begoña Martín Concepción Íñigo Joaquín Zoë"),
        _words("García Martínez Rodríguez López Hernández González Pérez Sánchez Ramírez Núñez Peña Muñoz Güemes"),
    ),
    Script(
        50,
        _words("Jürgen Zoë François Hélène Søren Åsa Łukasz Małgorzata Jiří Šárka Gábor Őrs Çağla İbrahim Đặng Nguyễn"),
        _words("Müller Lefèvre Brontë Sørensen Åkesson Wałęsiak Dvořáček Nyírő Yılmazoğlu Trần Ødegård"),
    ),
    Script(
        25,
        _words("Αλέξανδρος Ελένη Γεώργιος Μαρία Νίκος Σοφία"),
        _words("Παπαδόπουλος Νικολάου Γεωργίου Ιωάννου Δημητρίου"),
    ),
    Script(
        35,
        _words("Иван Мария Алексей Ольга Сергій Юлія Дмитрий Анна"),
        _words("Иванов Петренко Кузнецов Шевчук Соколов"),
    ),
    Script(30, _words("محمد فاطمة أحمد عائشة يوسف مريم"), _words("الخطيب النجار حداد منصور الأحمد")),
    Script(15, _words("דוד שרה יוסף רחל נועה"), _words("כהן לוי מזרחי פרץ ביטון")),
    Script(30, _words("राम सीता अर्जुन लक्ष्मी कृष्ण"), _words("शर्मा वर्मा गुप्ता पटेल रेड्डी")),
    Script(40, _words("伟 芳 秀英 敏 静 强"), _words("王 李 张 刘 陈 欧阳")),
    Script(20, _words("太郎 花子 健 さくら ケイ"), _words("佐藤 鈴木 高橋 田中 渡辺")),
    Script(20, _words("민수 지영 서연 현우"), _words("김 이 박 최 남궁")),
    Script(10, _words("สมชาย สมหญิง มานี ปิติ"), _words("ใจดี รักไทย แสงทอง")),
)

BUSINESS_FIRST = _words(
    "Amber Birch Cobalt Dogwood Ember Fernhill Granite Harbor Indigo Juniper Kestrel Larkspur Marigold Nutmeg Obsidian "
    "Periwinkle Quartz Rosewood Sandpiper Thistle Umber Willowbend Yarrow Zephyr Café Niño Ålesund"
)
BUSINESS_TRADE = (
    "Bakery", "Laundry", "Print Works", "Cold Storage", "Dental Care", "Day Nursery", "Hardware", "Machine Shop",
    "Irrigation", "Auto Repair", "Bowling Lanes", "Book Store", "Data Center", "Greenhouses", "Flour & Feed",
)  # fmt: skip
BUSINESS_FORM = ("LLC", "Inc.", "Co.", "& Sons", "Cooperative", "Partners, LP", "Corp.")

STREETS = (
    "Main St", "Oak Ave", "Maple Dr", "Cedar Ln", "Pine St", "Elm St", "Lake Rd", "Hill St", "2nd Ave",
    "Park Pl", "River Rd", "Sunset Ct", "Mill Rd", "Church St", "El Camino Real", "Camino Peña", "O'Fallon Way",
    "Martin Luther King Jr Blvd", "County Road 12", "Old Mission Trl", "Harbor View Ter",
)  # fmt: skip
UNITS = ("Apt", "Unit", "Suite", "#", "Bldg", "Lot")
AREA_CODES = (
    "201",
    "202",
    "206",
    "212",
    "303",
    "305",
    "312",
    "404",
    "415",
    "503",
    "504",
    "602",
    "612",
    "702",
    "713",
    "808",
    "907",
)
