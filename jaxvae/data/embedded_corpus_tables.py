"""Tables of the embedded corpus: the tags that each hidden factor brings, and their rates."""

# Tables: a tag and the percentage of rows in which this cause alone would bring it up.
STYLES = {
    "rock": "rock 62, classic rock 9, hard rock 10, alternative rock 9, indie rock 8, punk rock 7,"
    "progressive rock 5, psychedelic rock 4, rock and roll 7, soft rock 5, folk rock 3, blues 4,"
    "electric guitar 55, bass guitar 36, acoustic drums 41, drums 8, cymbals 7, acoustic guitar 6,"
    "keyboard 4, organ 4, harmonica 2, backbeat 5, rebellious 6, psychedelic 4, youthful 4",
    "metal": "metal 50, heavy metal 43, death metal 19, hard rock 14, rock 10, electric guitar 60,"
    "bass guitar 38, acoustic drums 41, drums 10, cymbals 14, half time feel 4, rebellious 9,"
    "aggressive 17, powerful 8",
    "pop": "pop 62, pop rock 10, synth pop 9, dance pop 11, k-pop 5, latin pop 4, easy listening 6,"
    "soft rock 5, country pop 3, keyboard 24, piano 14, synth 14, electronic drums 24, drums 7,"
    "bass guitar 20, electric guitar 10, acoustic guitar 9, synth bass 8, tambourine 4, clapping 6,"
    "backup singers 17, vocal harmony 10, youthful 9, danceable 9, groovy 6, strings 3",
    "hip hop": "hip hop 67, rap 31, trap 20, r&b 6, rapping 62, drum machine 22, beatboxing 9,"
    "electronic drums 31, synth bass 24, turntable 14, synth 10, keyboard 6, clapping 5,"
    "half time feel 5, syncopated 3, groovy 13, rebellious 9, youthful 6, backup singers 6",
    "soul": "soul 34, r&b 38, funk 26, disco 16, gospel 14, soulful 29, groovy 22, funky 22,"
    "electric piano 17, organ 16, bass guitar 38, brass section 16, acoustic drums 26, drums 6,"
    "electric guitar 17, tambourine 10, clapping 8, saxophone 6, vocal harmony 19, congas 3,"
    "backup singers 26, choir 4, groovy rhythm 14, syncopated 5, sensual 6, spiritual 3",
    "jazz": "jazz 77, big band 9, swing 18, blues 10, bossa nova 6, easy listening 5, piano 41,"
    "upright bass 43, saxophone 31, trumpet 20, trombone 8, clarinet 6, vibraphone 7, flute 3,"
    "acoustic drums 29, cymbals 6, electric guitar 9, brass section 8, electric piano 4, shuffle 5,"
    "syncopated 6, polyrhythms 2, groovy 5, mellow 5",
    "country": "country 58, country pop 8, bluegrass 19, blues 17, folk 8, rock and roll 3,"
    "acoustic guitar 48, slide guitar 20, banjo 22, mandolin 14, fiddle 24, upright bass 14,"
    "harmonica 14, bass guitar 17, acoustic drums 16, electric guitar 8, piano 4, shuffle 7,"
    "steady rhythm 4, nostalgic 5, heartfelt 5, vocal harmony 6",
    "folk": "folk 55, traditional 29, world music 7, folk rock 7, ballad 3, acoustic guitar 41,"
    "accordion 18, fiddle 16, bagpipes 7, flute 10, mandolin 8, harp 6, ukulele 8, violin 5,"
    "harmonica 6, tambourine 6, clapping 4, percussion 6, whistling 4, waltz 6, nostalgic 6,"
    "vocal harmony 6, spirited 4",
    "latin": "latin 41, salsa 22, bossa nova 11, flamenco 14, tango 8, latin pop 11, congas 29,"
    "bongos 20, acoustic guitar 29, percussion 24, shaker 14, cowbell 9, trumpet 19, piano 17,"
    "brass section 10, accordion 6, upright bass 6, bass guitar 9, timpani 1, marimba 3,"
    "dance rhythm 19, syncopated 8, passionate 9, sensual 7, danceable 14",
    "reggae": "reggae 67, ska 16, afrobeat 20, world music 5, bass guitar 41, electric guitar 20,"
    "keyboard 16, organ 10, acoustic drums 20, percussion 17, djembe 8, congas 8, shaker 6,"
    "brass section 9, trombone 4, syncopated 9, polyrhythms 7, groovy 17, groovy rhythm 10,"
    "easygoing 10, chill 8, backup singers 9, saxophone 4",
    "raga": "indian classical 36, middle eastern music 25, traditional 29, world music 20, folk 5,"
    "sitar 31, tabla 48, flute 18, oud 18, percussion 18, violin 8, didgeridoo 4, djembe 5,"
    "clapping 4, synth pad 2, spiritual 11, hypnotic 8, meditative 9, polyrhythms 4, strings 6",
    "classical": "classical 74, baroque 16, chamber music 19, orchestral 16, opera 10, piano 29,"
    "violin 29, cello 19, viola 9, harpsichord 8, harp 7, strings 30, orchestra 29, flute 9,"
    "clarinet 6, oboe 7, french horn 7, timpani 6, choir 8, organ 4, waltz 7, free time 4,"
    "marching rhythm 3, tuba 3, trumpet 3, dramatic 5",
    "dance": "electronic music 38, edm 31, house 19, techno 25, trance 17, dubstep 8, electro 18,"
    "drum & bass 7, dance music 29, disco 3, synth 41, synth bass 24, electronic drums 41,"
    "drum machine 18, synth pad 9, turntable 5, clapping 4, dance rhythm 17, steady rhythm 6,"
    "half time feel 2, danceable 24, groovy 7, hypnotic 8, exciting 5",
    "ambient": "ambient 60, new age 25, downtempo 16, experimental 18, electronic music 9,"
    "synth pad 43, synth 19, bells 14, theremin 6, flute 7, didgeridoo 5, harp 5, piano 8,"
    "free time 6, atmospheric 26, meditative 18, ethereal 18, dreamy 16, hypnotic 7, choir 2,"
    "electric guitar 3",
    "soundtrack": "movie soundtrack 50, video game music 20, orchestral 36, experimental 2,"
    "orchestra 31, strings 34, brass section 17, timpani 14, french horn 9, choir 16, piano 14,"
    "cello 6, synth pad 9, percussion 9, tuba 4, theremin 3, cymbals 5, marching rhythm 5, epic 24,"
    "dramatic 20, atmospheric 7, suspenseful 7, bells 3",
    "nursery": "children's song 55, lullaby 24, christmas song 24, xylophone 18, music box 11,"
    "ukulele 16, piano 20, bells 18, acoustic guitar 10, clapping 8, whistling 7, choir 9,"
    "marimba 7, tuba 3, marching rhythm 5, waltz 4, playful 17, fun 8, funny 5, keyboard 5",
}
MOODS = {
    "cheerful": "happy 26, cheerful 19, joyful 15, upbeat 20, fun 19, playful 10, funny 4,"
    "lively 8, festive 6, uplifting 9, easygoing 8, youthful 5, vibrant 5",
    "energetic": "energetic 40, exciting 17, lively 11, enthusiastic 14, vibrant 11, spirited 14,"
    "upbeat 14, powerful 8, youthful 6, passionate 8, fun 5",
    "fierce": "aggressive 27, intense 26, powerful 17, energetic 20, rebellious 8, chaotic 11,"
    "exciting 7, passionate 8, dark 5, dramatic 4",
    "tender": "emotional 32, passionate 30, romantic 27, sentimental 14, heartfelt 11, sensual 7,"
    "soulful 7, ballad 7, mellow 7, hopeful 5, inspiring 8, uplifting 6",
    "calm": "relaxing 24, calming 23, mellow 22, soothing 19, peaceful 13, easygoing 11, chill 11,"
    "dreamy 9, meditative 8, hopeful 4, ethereal 3",
    "sad": "sad 27, melancholic 25, emotional 31, poignant 12, pensive 11, nostalgic 12,"
    "sentimental 10, heartfelt 6, haunting 7, passionate 8, ballad 5",
    "dark": "dark 17, eerie 20, suspenseful 20, mysterious 17, ominous 14, haunting 13, tense 15,"
    "scary 12, dramatic 10, intense 10, hypnotic 6, atmospheric 6, chaotic 4",
}
TEMPOS = {
    "slow": "slow tempo 50, slow to medium tempo 7, very slow tempo 4, free time 3",
    "medium": "medium tempo 50, steady tempo 6, steady rhythm 5, medium to uptempo 4",
    "brisk": "uptempo 45, medium to uptempo 9, steady rhythm 4, steady tempo 2",
    "fast": "fast tempo 50, very fast tempo 4, steady rhythm 3",
}
PLAYERS = {
    "soloist": "instrumental 32",
    "group": "instrumental 27",
    "orchestra": "instrumental 18, orchestra 14, strings 9",
    "male singer": "male vocal 50, backup singers 3, vocal harmony 4",
    "female singer": "female vocal 50, backup singers 3, vocal harmony 4",
    "vocal group": "vocal harmony 46, choir 30, male vocal 12, female vocal 12, clapping 3",
}
# How readily each sort of player brings up what a style's table lists, by family of instrument; an
# instrument of no family is a lead and is scaled by the first number, other tags are not scaled.
FAMILIES = {
    "rhythm": "bass guitar, synth bass, acoustic drums, drums, drum machine, electronic drums,"
    "cymbals, percussion, congas, bongos, tambourine, shaker, cowbell, clapping, timpani",
    "section": "orchestra, strings, brass section, french horn, viola, oboe, tuba",
    "voice": "vocal harmony, backup singers, choir, rapping, beatboxing",
}
SCALES = {  #            lead, rhythm, section, voice
    "soloist": (1.1, 0.05, 0.0, 0.0),
    "group": (1.0, 1.1, 0.8, 0.0),
    "orchestra": (0.5, 0.3, 1.7, 0.5),
    "male singer": (0.8, 0.9, 0.5, 1.0),
    "female singer": (0.8, 0.9, 0.5, 0.7),
    "vocal group": (0.4, 0.5, 0.4, 1.3),
}
DETAIL = {"brief": 0.40, "full": 0.92}  # Scales every percentage above.
# Relative weights: the style itself; then, in the order of the tables above, mood (cheerful,
# energetic, fierce, tender, calm, sad, dark), tempo (slow to fast) and players given the style.
STYLE_WEIGHTS = {
    "rock": (11, (6, 9, 6, 5, 2, 4, 1), (2, 5, 4, 4), (2, 5, 0, 12, 4, 1)),
    "metal": (5, (0, 5, 14, 1, 0, 1, 4), (1, 3, 3, 8), (2, 6, 0, 12, 2, 0)),
    "pop": (12, (9, 6, 0.3, 9, 3, 4, 0.3), (3, 6, 5, 2), (1, 2, 0, 7, 9, 2)),
    "hip hop": (6, (4, 6, 5, 2, 2, 1, 2), (2, 6, 3, 2), (0, 3, 0, 12, 3, 1)),
    "soul": (7, (6, 6, 0.3, 8, 3, 2, 0), (3, 6, 4, 1), (1, 3, 0, 6, 7, 4)),
    "jazz": (7, (5, 4, 0.2, 5, 8, 3, 1), (5, 5, 3, 3), (4, 10, 2, 3, 4, 0.5)),
    "country": (6, (7, 4, 0.2, 6, 4, 4, 0.2), (3, 5, 4, 3), (4, 4, 0, 9, 4, 1)),
    "folk": (7, (7, 4, 0.2, 5, 5, 5, 1), (4, 5, 3, 3), (6, 4, 0, 5, 5, 3)),
    "latin": (5, (6, 8, 0.3, 8, 2, 2, 0.2), (2, 4, 5, 4), (3, 5, 0, 6, 5, 1)),
    "reggae": (4, (7, 5, 0.3, 3, 7, 1, 0.3), (3, 7, 4, 1), (0, 4, 0, 10, 3, 2)),
    "raga": (5, (3, 3, 0.1, 5, 7, 3, 2), (5, 5, 2, 2), (6, 5, 0.5, 5, 5, 1)),
    "classical": (8, (2, 2, 1, 6, 6, 6, 3), (7, 4, 2, 3), (8, 4, 9, 1, 2, 2)),
    "dance": (9, (5, 12, 2, 2, 1, 0.5, 2), (0.3, 3, 7, 6), (0, 12, 0, 3, 5, 0)),
    "ambient": (5, (0, 0, 0, 2, 13, 2, 7), (12, 3, 0.3, 0), (5, 10, 1, 0.5, 1, 0.5)),
    "soundtrack": (5, (1, 3, 3, 3, 2, 4, 9), (5, 4, 2, 3), (2, 4, 14, 0, 0.5, 2)),
    "nursery": (3, (14, 3, 0, 3, 6, 0.5, 0), (6, 7, 3, 1), (4, 4, 1, 4, 5, 4)),
}
TEMPO_GIVEN_MOOD = {  # Factors on the tempo weights of the style.
    "cheerful": (0.3, 1.0, 1.5, 1.0),
    "energetic": (0.1, 0.7, 1.5, 1.8),
    "fierce": (0.3, 0.7, 1.1, 1.8),
    "tender": (1.6, 1.3, 0.6, 0.3),
    "calm": (2.2, 1.0, 0.15, 0.05),
    "sad": (2.2, 1.0, 0.3, 0.2),
    "dark": (1.3, 1.0, 0.7, 0.8),
}
# A tag may come up with no cause at all, the more readily the more tables name it.
STRAY_RATE = 0.00006
MAX_PROBABILITY = 0.95

# What listeners say beyond the vocabulary: sound quality and occasion.
OUTSIDE_TAGS = (
    "low quality, noisy, mono, amateur recording, live performance, home recording, reverberant,"
    "muffled audio, crowd cheering, people talking, tutorial, unbalanced stereo, background noise"
)
OUTSIDE_ONLY = 0.03  # Share of rows that have only such tags,
OUTSIDE_TOO = 0.08  # and of rows that have some of them beside their own.
