"""Word lists that the generated conversations are built from."""

GREETINGS = {
    "French": ("Bonjour", "Merci", "Au revoir", "Oui", "Non", "eau", "chat", "chien", "maison", "livre"),
    "Spanish": ("Hola", "Gracias", "Adiós", "Sí", "No", "agua", "gato", "perro", "casa", "libro"),
    "German": ("Hallo", "Danke", "Tschüss", "Ja", "Nein", "Wasser", "Katze", "Hund", "Haus", "Buch"),
    "Italian": ("Ciao", "Grazie", "Arrivederci", "Sì", "No", "acqua", "gatto", "cane", "casa", "libro"),
    "Portuguese": ("Olá", "Obrigado", "Adeus", "Sim", "Não", "água", "gato", "cão", "casa", "livro"),
    "Dutch": ("Hallo", "Dank je", "Tot ziens", "Ja", "Nee", "water", "kat", "hond", "huis", "boek"),
    "Swedish": ("Hej", "Tack", "Hej då", "Ja", "Nej", "vatten", "katt", "hund", "hus", "bok"),
    "Polish": ("Cześć", "Dziękuję", "Do widzenia", "Tak", "Nie", "woda", "kot", "pies", "dom", "książka"),
    "Japanese": ("こんにちは", "ありがとう", "さようなら", "はい", "いいえ", "水", "猫", "犬", "家", "本"),
    "Russian": ("Привет", "Спасибо", "До свидания", "Да", "Нет", "вода", "кот", "собака", "дом", "книга"),
    "Turkish": ("Merhaba", "Teşekkürler", "Hoşça kal", "Evet", "Hayır", "su", "kedi", "köpek", "ev", "kitap"),
    "English": ("Hello", "Thank you", "Goodbye", "Yes", "No", "water", "cat", "dog", "house", "book"),
}
CONCEPTS = (
    ("hi", "hello"),
    ("thanks", "thank you"),
    ("goodbye", "bye"),
    ("yes",),
    ("no",),
    ("water",),
    ("cat",),
    ("dog",),
    ("house",),
    ("book",),
)
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Canada": "Ottawa", "Brazil": "Brasília",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw",
    "Greece": "Athens", "Turkey": "Ankara", "Austria": "Vienna", "Ireland": "Dublin", "Peru": "Lima",
    "Chile": "Santiago", "Cuba": "Havana", "Hungary": "Budapest", "Finland": "Helsinki", "Denmark": "Copenhagen",
}  # fmt: skip
CITIES = (
    "Paris", "London", "Berlin", "Tokyo", "Madrid", "Rome", "Lisbon", "Vienna", "Oslo", "Boston", "Chicago",
    "Seattle", "Denver", "Austin", "Toronto", "Sydney", "Mumbai", "Cairo", "Nairobi", "Lima", "San Francisco",
    "New York", "Los Angeles", "Hong Kong", "Mexico City", "Cape Town", "Buenos Aires", "Amsterdam", "Prague",
)  # fmt: skip
PEOPLE = (
    "Alice", "Bob", "Carol", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Karen", "Leo", "Maria",
    "Noah", "Olivia", "Peter", "Quinn", "Rosa", "Sam", "Tina", "Uma", "Victor", "Wendy", "Yusuf", "Zoe",
)  # fmt: skip
THINGS = (
    "apples", "books", "chairs", "lamps", "pens", "shoes", "tables", "phones", "laptops", "tickets", "candles",
    "bottles", "cameras", "carpets", "clocks", "flowers", "gloves", "hats", "keys", "mirrors", "pillows", "tents",
)  # fmt: skip
TOPICS = (
    "the history of bread", "climate change", "machine learning", "black holes", "the moon landing", "chess openings",
    "healthy cooking", "electric cars", "ancient Rome", "ocean life", "jazz music", "solar power", "bird migration",
    "the French revolution", "garden design", "sleep", "coffee", "mountain climbing", "quantum computers", "poetry",
)  # fmt: skip
SYMBOLS = ("AAPL", "GOOG", "MSFT", "AMZN", "TSLA", "NVDA", "META", "IBM", "ORCL", "INTC", "AMD", "NFLX", "SAP", "SONY")
CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CHF", "CAD", "AUD", "INR", "SEK", "PLN")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "today", "tomorrow")
SYLLABLES = (
    "ba", "ka", "lo", "mi", "ra", "to", "ven", "zu", "tal", "mor", "den", "sha", "qui", "ri", "an", "el", "gor", "nes",
    "pul", "wex", "ost", "fir", "hal", "jun", "cor", "dri",
)  # fmt: skip
ADJECTIVES = ("small", "old", "brave", "quiet", "clever", "tired", "happy", "lonely", "curious", "gentle", "proud")
ANIMALS = ("fox", "rabbit", "bear", "mouse", "owl", "cat", "dog", "horse", "turtle", "robin", "frog", "goat")
PLACES = ("forest", "village", "garden", "river", "mountain", "city", "castle", "field", "library", "harbour")
VERBS = (
    "rename", "delete", "archive", "print", "lock", "unlock", "move", "copy", "open", "close", "share", "export",
    "rotate", "paint", "repair", "inspect", "measure", "clean", "install", "restart", "approve", "reject", "publish",
    "cancel", "assign", "merge", "restore", "compress", "scan", "ship", "store", "test", "train", "update", "verify",
)  # fmt: skip
NOUNS = (
    "file", "folder", "door", "report", "invoice", "ticket", "server", "camera", "robot", "engine", "account", "image",
    "message", "window", "device", "sensor", "parcel", "recipe", "contract", "branch", "table", "battery", "lamp",
    "printer", "record", "video", "garden", "machine", "package", "profile", "project", "network", "vehicle", "page",
)  # fmt: skip
