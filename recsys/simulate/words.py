"""The words of which the catalogue and the user table are made."""
# ruff: noqa: SIM905 - word lists read better as text

CATEGORIES = (
    "audio bags bakery bikes books camping coffee cosmetics fitness footwear furniture games "
    "garden jewellery kitchen lighting music pets tools toys"
).split()
WORDS = (
    "adjustable antique bright ceramic classic compact cordless cosy cotton delicate durable elegant family floral foldable "
    "fresh glossy handmade heavy herbal indoor large leather light linen magnetic matte mini modern natural outdoor padded "
    "portable quiet recycled retro rustic silver slim smart soft solar spicy steel striped sweet travel vintage "
    "waterproof wooden"
).split()
SYLLABLES = "ba ce do fi gu ha jo ka le mi no pa ri so tu va we xa yo zi".split()
BRANDS_PER_CATEGORY, VOCABULARY, TAGS_PER_ITEM = 6, 12, 3
COUNTRIES = "US IN BR DE JP GB FR ID MX NG".split()
AGE_GROUPS = "18-24 25-34 35-44 45-54 55-64 65+".split()
DEVICES = "phone desktop tablet tv".split()
