"""The word table of the 80 COCO categories: what people say when they see one.

Words that people use for several categories are left out, as nobody could say which one a caption means: "computer" (tv or laptop),
"glass", "bag", "board", "trolley", "seat". So are words that mostly name something else: "chicken" and "turkey" (food), "crane", "bow",
"screen", "recliner", "street light". Where a word depends on its neighbors, longer phrases decide (`NO_OBJECT_PHRASES`).

A name stands in the singular and its plurals are added, unless it ends in "!".
"""

from __future__ import annotations

COCO_NAMES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant",
    "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe",
    "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl",
    "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave",
    "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 categories of COCO 2017, in the order of their ids."""

SYNONYMS: dict[str, str] = {
    "person": """man, woman, boy, girl, child, kid, people, human, human being, folk, guy, dude, fellow, lad, lady, gentleman, gal,
        baby, infant, toddler, newborn, youngster, teen, teenager, adolescent, adult, grown up, males!, females!, someone!, somebody!,
        mother, mom, mum, mommy, father, dad, daddy, parent, brother, sister, sibling, son, daughter, grandmother, grandma,
        grandfather, grandpa, grandparent, grandchild, grandson, granddaughter, uncle, aunt, cousin, husband, wife, bride, groom!,
        bridegroom, bridesmaid, boyfriend, girlfriend, friend, neighbor, buddy, player, batter, hitter, catcher, pitcher, baseman,
        outfielder, infielder, umpire, referee, goalie, goalkeeper, teammate, opponent, athlete, sportsman, gymnast, golfer, bowler,
        runner, jogger, swimmer, diver, dancer, skier, snowboarder, skater, skateboarder, surfer, boarder, windsurfer, kitesurfer,
        kiteboarder, wakeboarder, paddleboarder, parasailer, skydiver, kayaker, rower, sailor, rider, biker, bicyclist, cyclist,
        motorcyclist, motorist, driver, passenger, commuter, traveler, traveller, tourist, visitor, hiker, climber, backpacker,
        walker, pedestrian, passerby, bystander, onlooker, spectator, shopper, buyer, customer, seller, vendor, merchant, shopkeeper,
        worker, coworker, employee, businessman, businesswoman, businessperson, salesman, chef, baker, waiter, waitress, bartender,
        barista, butcher, doctor, nurse, surgeon, dentist, patient, teacher, student, pupil, schoolgirl, schoolboy, professor,
        graduate, scientist, lawyer, politician, president, judge!, priest, nun, monk, soldier, serviceman, marine!, policeman,
        policewoman, police officer, officer, cop, guard, fireman, firefighter, fire fighter, farmer, fisherman, hunter, rancher,
        cowboy, cowgirl, jockey, equestrian, horseman, matador, bullfighter, zookeeper, carpenter, mechanic, plumber, electrician,
        repairman, craftsman, workman, mailman, handyman, photographer, cameraman, reporter, journalist, musician, guitarist, drummer,
        singer, performer, entertainer, clown, magician, juggler, actor, actress, artist, painter, barber, hairdresser, hairstylist,
        stylist, pilot, stewardess, flight attendant, attendee, participant, contestant, competitor, winner, guest, foreigner,
        stranger, thief, villager, homeless man, chairman, crewman, snow boarder, skate boarder, ball player, horseback rider,
        lifeguard, caller, drinker, jet skier, surf boarder, air traffic controller, baby boy, baby girl, toddler boy, toddler girl,
        teen boy, teen girl, boy scout, girl scout, adult man, adult woman, child passenger, boy child, girl child, business man,
        business woman, police man, police woman, fire man, mail man, delivery man, lady friend""",
    "bicycle": """bike, pushbike, tricycle, trike, unicycle, minibike, mountain bike, road bike, ten speed, ten speed bike,
        ten speed bicycle, bmx bike, bicycle built for two!""",
    "car": """automobile, sedan, hatchback, coupe, convertible, suv, s u v, jeep, van, minivan, mini van, taxi, taxicab, taxi cab, taxi
        car, cab, limousine, limo, station wagon, sports car, sport car, race car, racecar, police car, cop car, hot rod, roadster,
        dune buggy""",
    "motorcycle": """motorbike, motor bike, motor cycle, motocycle, moped, scooter, motor scooter, motorscooter, vespa, dirt bike,
        dirtbike, harley, harley davidson""",
    "airplane": """plane, aeroplane, air plane, aircraft, jet, airliner, air liner, jetliner, jet liner, jet plane, jumbo jet, fighter
        jet, fighter plane, biplane, bi plane, monoplane, seaplane, sea plane, airbus, boeing, warplane, prop plane, propeller plane""",
    "bus": """minibus, mini bus, double decker, double decker bus, school bus, schoolbus, tour bus, shuttle bus, city bus, trolleybus,
        trolley bus, motorcoach""",
    "train": """locomotive, caboose, tram, tramcar, tramway, streetcar, street car, trolley car, train car, train engine, steam engine,
        subway train, subway car, railcar, rail car, railroad car, railway car, boxcar, box car, freight car, freight train, bullet
        train, commuter train, monorail, train cart, dining car""",
    "truck": """pickup, pick up truck, pickup truck, lorry, firetruck, fire truck, fire engine, fire rescue truck, semi, semi truck,
        semi trailer, tractor trailer, dump truck, tow truck, garbage truck, food truck, delivery truck, box truck, cargo truck,
        flatbed, flatbed truck, big rig, eighteen wheeler, 18 wheeler, moving van, truck cab, hauler, tanker truck, trash truck,
        monster truck""",
    "boat": """ship, sailboat, sail boat, sailing boat, motorboat, motor boat, speedboat, speed boat, powerboat, power boat, rowboat,
        row boat, rowing boat, paddle boat, paddleboat, fishing boat, tugboat, tug boat, houseboat, house boat, lifeboat, life boat,
        steamboat, steam boat, riverboat, river boat, ferryboat, ferry boat, ferry, cruise ship, cruise liner, ocean liner, canoe,
        kayak, dinghy, skiff, yacht, catamaran, schooner, trawler, barge, freighter, battleship, warship, steamship, pontoon, pontoon
        boat, watercraft, aircraft carrier, sailing ship, cargo ship, dingy!""",
    "traffic light": "traffic signal, trafficlight, stop light, stoplight, signal light, traffic lamp",
    "fire hydrant": "hydrant, fireplug, fire plug, water hydrant, firehydrant",
    "stop sign": "stopsign",
    "parking meter": "parkingmeter, park meter",
    "bench": "park bench, pew, picnic bench",
    "bird": """seagull, sea gull, gull, pigeon, dove, sparrow, finch, robin, wren, starling, bluebird, blackbird, blue jay, bluejay,
        crow, raven, magpie, oriole, cowbird, chickadee, warbler, woodpecker, hummingbird, humming bird, kingfisher, duck, duckling,
        mallard, goose, gosling, swan, cygnet, loon, cormorant, pelican, puffin, penguin, albatross, tern, sandpiper, heron, egret,
        stork, ibis, flamingo, spoonbill, owl, eagle, bald eagle, hawk, falcon, osprey, vulture, buzzard, condor, parrot, parakeet,
        cockatoo, cockatiel, macaw, lorikeet, toucan, canary, peacock, peafowl, peahen, pheasant, quail, partridge, grouse, ostrich,
        emu, rooster, hen, wild turkey, waterfowl, water fowl, fowl, songbird, song bird, seabird, sea bird, shorebird, waterbird,
        water bird, sandhill crane""",
    "cat": "kitten, kitty, kitty cat, feline, tabby, tabby cat, tomcat, tom cat, house cat, siamese cat, calico cat, pussycat",
    "dog": """puppy, pup, puppy dog, doggy, doggie, canine, mutt, hound, beagle, bulldog, bull dog, chihuahua, cocker spaniel, collie,
        corgi, dachshund, dalmatian, dalmation, doberman, german shepherd, german shepard, golden retriever, retriever, greyhound,
        husky, labrador, lapdog, maltese, mastiff, pit bull, pitbull, pomeranian, poodle, pug, rottweiler, saint bernard, schnauzer,
        sheepdog, sheep dog, sheltie, spaniel, terrier, weimaraner, whippet, basset hound, great dane, shih tzu, watchdog, guide dog""",
    "horse": """pony, foal, colt, filly, mare, stallion, gelding, racehorse, race horse, palomino, clydesdale, bronc, bucking bronco,
        thoroughbred, draft horse, workhorse""",
    "sheep": "lamb, ewe, ram, goat, billy goat, mountain goat, bighorn sheep",
    "cow": """cattle, calf, bull, ox, oxen, heifer, bovine, longhorn, holstein, buffalo, water buffalo, bison, zebu, yak, dairy cow,
        milk cow""",
    "elephant": "elephant calf, pachyderm",
    "bear": "polar bear, panda, panda bear, grizzly, grizzly bear, black bear, brown bear, bear cub, cub bear, kodiak bear",
    "zebra": "",
    "giraffe": "giraffe calf",
    "backpack": "back pack, knapsack, rucksack, bookbag, book bag, daypack, school bag",
    "umbrella": "parasol, beach umbrella, patio umbrella, sunshade!, sun umbrella",
    "handbag": "hand bag, purse, pocketbook, tote bag, shoulder bag, satchel",
    "tie": "necktie, neck tie, bow tie, bowtie",
    "suitcase": "suit case, luggage, piece of luggage, luggage bag, baggage, valise, carry on bag, travel bag",
    "frisbee": "frisbe, frizbee, frisby, flying disc, flying disk",
    "skis": "ski, water ski, snow ski",
    "snowboard": "snow board",
    "sports ball": """ball, tennis ball, soccer ball, beach ball, golf ball, rugby ball, cricket ball, bowling ball, billiard ball, base
        ball, volley ball, basket ball, foot ball, baseballs!, basketballs!, footballs!, volleyballs!, softballs!, beachball,
        soccerball""",
    "kite": "box kite, parasail, para sail",
    "baseball bat": "bat, wooden bat, metal bat",
    "baseball glove": "baseball mitt, catchers mitt, catcher's mitt, catcher mitt, mitt, ball glove, catchers glove, catcher's glove",
    "skateboard": "skate board",
    "surfboard": """surf board, boogie board, boogieboard, body board, bodyboard, wakeboard, wake board, skimboard, skim board, paddle
        board, paddleboard, shortboard""",
    "tennis racket": "tennis racquet, racket, racquet, tennis raquet, tennis paddle",
    "bottle": "water bottle, wine bottle, beer bottle, bottle of wine, bottle of water, bottle of beer",
    "wine glass": """wineglass, glass of wine, glass of red wine, glass of white wine, goblet, wine goblet, champagne glass, martini
        glass, champagne flute""",
    "cup": "mug, teacup, tea cup, coffee cup, coffee mug, paper cup, cup of coffee, cup of tea, coffeecup, sippy cup",
    "fork": "salad fork, dinner fork",
    "knife": "butter knife, steak knife, pocketknife, pocket knife, butcher knife, kitchen knife, knive!, paring knife, chef's knife",
    "spoon": "teaspoon, tablespoon, soup spoon, wooden spoon, serving spoon",
    "bowl": "soup bowl, salad bowl, mixing bowl, fruit bowl, cereal bowl, punch bowl",
    "banana": "plantain",
    "apple": "",
    "sandwich": """burger, hamburger, ham burger, cheeseburger, cheese burger, veggie burger, hoagie, panini, blt, sub sandwich,
        submarine sandwich, club sandwich, grilled cheese sandwich, sandwhich, turkey sandwich, chicken sandwich""",
    "orange": "tangerine, clementine, mandarin orange, mandarin, navel orange, orange slice, slice of orange, satsuma",
    "broccoli": "brocolli, brocoli, broccoli floret, broccolini",
    "carrot": "baby carrot, carrot stick",
    "hot dog": "hotdog, chili dog, chilidog, hot dog sandwich, frankfurter, bratwurst",
    "pizza": "pizza pie, pizza slice, slice of pizza, piece of pizza, deep dish pizza",
    "donut": "doughnut, bagel, doughnut hole, donut hole, do nut, dough nut",
    "cake": """cupcake, cup cake, cheesecake, cheese cake, shortcake, coffeecake, coffee cake, birthday cake, wedding cake, layer cake,
        sheet cake, carrot cake, chocolate cake, piece of cake, slice of cake""",
    "chair": """armchair, arm chair, rocking chair, lawn chair, beach chair, desk chair, office chair, dining chair, folding chair, high
        chair, highchair, stool, bar stool, barstool, footstool, foot stool, wheelchair, wheel chair, easy chair, lounge chair,
        beanbag chair, bean bag chair""",
    "couch": "sofa, loveseat, love seat, settee, futon, chesterfield, divan, sofa bed, sectional sofa, sectional couch",
    "potted plant": """houseplant, house plant, plant pot, pot plant, potted flower, potted tree, potted palm, plant in a pot, flower
        pot, flowerpot, planter, pot of flowers!, pots of flowers!, plants in pots!, pot with a plant!""",
    "bed": """bunk bed, bunkbed, canopy bed, king size bed, queen size bed, double bed, twin bed, hospital bed, hotel bed, dog bed, cat
        bed""",
    "dining table": """table, dinner table, kitchen table, dining room table, picnic table, coffee table, wooden table, end table, side
        table, card table, diningtable, desk, office desk, computer desk, dining set, dinning table, dining tabel, tabletop, table top""",
    "toilet": """toilet seat, toilet bowl, toilet lid, toilet tank, urinal, commode, latrine, potty, porta potty, port a potty,
        lavatory, port a john""",
    "tv": """television, television set, television screen, tv set, tv screen, t v, tv monitor, flat screen, flat screen tv, flatscreen,
        flatscreen tv, televison, monitor, computer monitor, computer screen, telly, desktop monitor, flat screen television""",
    "laptop": """laptop computer, lap top, lap top computer, notebook computer, netbook, macbook, mac book, macbook pro, chromebook,
        apple laptop""",
    "mouse": "computer mouse, wireless mouse, optical mouse, mouse for a computer",
    "remote": """remote control, remote controller, remote controll, tv remote, tv remote control, television remote, television remote
        control, wii remote, wii remote control, wii controller, nintendo wii controller, nintendo wii remote, wiimote, wii mote, game
        controller, video game controller, game remote, controller, clicker""",
    "keyboard": "computer keyboard, key board, laptop keyboard",
    "cell phone": """cellphone, cellular phone, cellular telephone, cellular device, mobile phone, mobile telephone, mobile device,
        smartphone, smart phone, camera phone, flip phone, phone, telephone, iphone, i phone, apple iphone, blackberry phone, android
        phone, cordless phone""",
    "microwave": "microwave oven, micro wave",
    "oven": "stove, stovetop, stove top, stove top oven, stovetop oven, toaster oven, gas stove, cook stove, pizza oven, oven range",
    "toaster": "bread toaster",
    "sink": "bathroom sink, kitchen sink, washbasin, wash basin, hand basin, pedestal sink, wash bowl, washbowl",
    "refrigerator": "fridge, refridgerator, refrigerater, freezer, fridge freezer, icebox, frig",
    "book": "textbook, text book, paperback, hardback, novel, comic book, cookbook, cook book, storybook, story book, hardcover book",
    "clock": "clock tower, clocktower, alarm clock, grandfather clock, wall clock, cuckoo clock, clock face, clockface",
    "vase": "flower vase, glass vase",
    "scissors": "scissor, pair of scissors, shears!",
    "teddy bear": "teddybear, teddy, stuffed bear, stuffed teddy bear, toy bear, bear doll, teddie bear, plush bear, toy teddy bear",
    "hair drier": "hair dryer, hairdryer, hairdrier, blow dryer, blowdryer, blow drier, blowdrier",
    "toothbrush": "tooth brush, electric toothbrush",
}  # fmt: skip
"""Further words by category, separated by commas."""

NO_OBJECT_PHRASES = """
    car seat, car park, car wash, cable car, bike lane, bike path, bike trail, bike rack, bike helmet, bicycle helmet, bicycle lane,
    bicycle path, motorcycle helmet, exercise bike, stationary bike, kick scooter, push scooter, razor scooter, jet ski, paper airplane,
    paper plane, bus stop, bus station, bus shelter, bus lane, bus depot, bus terminal, train station, train track, train depot, train
    platform, train stop, truck stop, truck bed, cab of a truck!, semi circle, boat house, boat dock, boat ramp, gravy boat, bench
    press, bird house, bird cage, bird feeder, bird bath, rubber duck, rubber ducky, rubber duckie, hello kitty, cat food, cat fish, cat
    litter, corn dog, dog house, dog food, dog park, dog tag, prairie dog, red bull, horse shoe, sea horse, saw horse, rocking horse,
    horse radish, lamb chop, buffalo wing, cow bell, elephant seal, koala bear, gummy bear, zebra crossing, zebra print, zebra stripe,
    giraffe print, mickey mouse, minnie mouse, mouse pad, mouse trap, stuffed mouse, toy mouse, remote area, remote location, remote
    place, remote island, remote village, remote beach, remote region, remote road, remote field, remote mountain, remote desert, piano
    keyboard, electric keyboard, music keyboard, musical keyboard, electronic keyboard, phone booth, telephone booth, phone pole,
    telephone pole, phone line, telephone line, telephone wire, phone cord, book shelf, book case, book store, tie dye, tie dyed!, zip
    tie, railroad tie, hair tie, world cup, cup holder, super bowl, fork lift, fork in the road!, tuning fork, pizza box, pizza cutter,
    pizza place, pizza shop, pizza parlor, pizza restaurant, pizza dough, pizza pan, pizza sauce, apple pie, apple juice, apple tree,
    apple computer, apple logo, apple sauce, apple cider, apple store, orange juice, orange tree, orange soda, banana bread, banana
    tree, banana leaf, donut shop, doughnut shop, sandwich board, sandwich shop, burger king, cake pan, cake stand, bed spread, flower
    bed, river bed, bed of flowers!, bed of lettuce!, bed of rice!, bed of grass!, bed of a truck!, bed of the truck!, bed of a pickup!,
    bed of a pickup truck!, bed of hay!, bed of straw!, bed of greens!, bed of pasta!, table cloth, table tennis, pool table, table
    lamp, table saw, table mat, table runner, carpet runner, changing table, billiard table, ping pong table, operating table, desk
    lamp, desk drawer, desktop computer, desk top computer, chair lift, ski lift, ski slope, ski resort, ski pole, ski jump, ski boot,
    ski suit, ski lodge, ski trail, ski run, ski hill, ski mask, ski gear, ski area, ski jacket, ski goggle, ski course, ski track,
    toilet paper, roll of toilet paper, toilet brush, toilet paper roll, toilet paper holder, toilet roll, toilet tissue, tv stand, tv
    show, tv dinner, tv tray, tv room, television stand, television show, baby monitor, heart monitor, dutch oven, oven mitt, oven
    glove, bottle cap, bottle opener, ball game, ball field, ball park, ball room, ball cap, ball pit, ball gown, ball point, crystal
    ball, disco ball, meat ball, wrecking ball, cannon ball, cotton ball, cheese ball, ball of yarn!, at bat!, up to bat!, fruit bat,
    vampire bat, umbrella stand, knife block, knife holder, snow man, man hole, gingerbread man, man made!, stick man, lady bug, cd
    player, dvd player, record player, mp3 player, music player, media player, water pitcher, glass pitcher, pitcher of water, pitcher
    of beer, pitcher of milk, pitcher of juice, baby carriage, baby stroller, baby buggy, baby crib, baby seat, baby food, baby shower,
    baby doll, baby blue, baby corn, baby clothes, baby powder, baby grand, baby grand piano, baby gate, child seat, screw driver, chef
    hat, chef's hat, cowboy hat, cowboy boot, human statue, visitor center,
    coast guard, guard rail, man cave, men's room, mens room, men's restroom, women's restroom, men's bathroom, women's bathroom,
    ladies room!, children's book!, doctor's office, dentist's office, dentist office, its baby, its mother, its parent
"""
"""Phrases that name no object of the 80 although a word of them would."""

ANIMALS = frozenset({"bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"})
VEHICLES = frozenset({"train", "airplane", "bus", "boat", "car", "truck"})
QUALIFIERS: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        ("baby", "adult", "infant", "newborn", "toddler", "mother", "mom", "momma", "mommy", "mama"), ANIMALS
    ),
    **dict.fromkeys(("father", "dad", "daddy", "papa", "parent", "adolescent", "teenager"), ANIMALS),
    "passenger": VEHICLES,
}
"""Words that name a person by themselves, but only describe an animal or a vehicle before the name of one: "baby elephant"."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


BETWEEN = _set(
    "big black blue brown cute gray green grey huge large little old orange red silver small spotted tan tiny white yellow young"
)
"""Adjectives that may stand between a qualifier and the name, as in "baby brown cow"."""

COLORS = _set("beige black blue brown cream gold gray green grey maroon pink purple red silver tan teal white yellow")
AFTER_A_NOUN = _set(
    """above against along already also among and are around as at be behind being below beneath beside between but by can chopped cut
    cutting down during eaten floating for fruit fruits from fully growing half halves hanging has have having held here holding hung in
    inside into is it its laid lay laying lays lie lies lying mid near next now of off on onto or out outside over partially peel peeled
    peels piece pieces placed placing positioned resting rests ripe section sections segment segments set sits sitting slice sliced slices
    stacked standing stands still that the there to together too topped under underneath up wedge wedges was were when where which while
    with without"""
)
"""Words that may follow a noun. "Orange" before any other word is the color of what follows; so it is in "orange and white"."""

BEFORE_A_COLOR = _set("bright brightly dark dressed in light neon painted colored wearing")
"""Words after which "orange" is a color, as in "a man in orange"."""
