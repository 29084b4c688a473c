-- The sample's enumerated types and tables, without keys: rows go in faster before there is an index to keep.

CREATE TYPE "BillingStatus" AS ENUM ('PENDING', 'BILLED', 'PAID', 'OVERDUE', 'CANCELLED');
CREATE TYPE "CurriculumCategory" AS ENUM (
    'CHORDS', 'SCALES', 'ARPEGGIOS', 'THEORY', 'RHYTHM', 'LEAD_GUITAR', 'FINGERSTYLE', 'SONGS', 'RIFFS',
    'SOLOS', 'TECHNIQUE', 'SIGHT_READING', 'EAR_TRAINING', 'IMPROVISATION', 'OTHER'
);
CREATE TYPE "EmailType" AS ENUM (
    'LESSON_BOOKING', 'LESSON_CANCELLATION', 'LESSON_REMINDER', 'INVOICE_GENERATED', 'INVOICE_OVERDUE',
    'CHECKLIST_COMPLETION', 'SYSTEM_UPDATES', 'STUDENT_WELCOME', 'LESSON_COMPLETED',
    'STUDENT_INVITATION', 'LESSON_BOOKING_RECURRING'
);
CREATE TYPE "Instrument" AS ENUM ('GUITAR', 'BASS', 'UKULELE');
CREATE TYPE "InvoiceStatus" AS ENUM ('PENDING', 'SENT', 'VIEWED', 'PAID', 'OVERDUE', 'CANCELLED');
CREATE TYPE "LessonStatus" AS ENUM ('SCHEDULED', 'COMPLETED', 'CANCELLED', 'MISSED', 'NO_SHOW');
CREATE TYPE "LibraryCategory" AS ENUM (
    'TABLATURE', 'SHEET_MUSIC', 'CHORD_CHARTS', 'SCALES', 'ETUDES', 'EXERCISES', 'THEORY', 'OTHER'
);
CREATE TYPE "LinkType" AS ENUM ('WEBSITE', 'YOUTUBE', 'VIMEO', 'SPOTIFY', 'OTHER');
CREATE TYPE "ProgressStatus" AS ENUM ('NOT_STARTED', 'IN_PROGRESS', 'COMPLETED', 'NEEDS_REVIEW');
CREATE TYPE "RecommendationCategory" AS ENUM ('GEAR', 'BOOKS', 'SOFTWARE', 'ONLINE_COURSES', 'APPS', 'OTHER');
CREATE TYPE "Role" AS ENUM ('STUDENT', 'TEACHER', 'ADMIN');
CREATE TYPE "SlotStatus" AS ENUM ('ACTIVE', 'CANCELLED', 'SUSPENDED', 'EXPIRED');
CREATE TYPE "SubscriptionStatus" AS ENUM ('ACTIVE', 'PAUSED', 'CANCELLED', 'EXPIRED');

CREATE TABLE "Account" (
    "id" text NOT NULL,
    "userId" text NOT NULL,
    "type" text NOT NULL,
    "provider" text NOT NULL,
    "providerAccountId" text NOT NULL,
    "refresh_token" text,
    "access_token" text,
    "expires_at" integer,
    "token_type" text,
    "scope" text,
    "id_token" text,
    "session_state" text
);

CREATE TABLE "BackgroundJobLog" (
    "id" text NOT NULL,
    "jobName" text NOT NULL,
    "executedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "success" boolean NOT NULL,
    "lessonsGenerated" integer NOT NULL DEFAULT 0,
    "teachersProcessed" integer NOT NULL DEFAULT 0,
    "errors" text
);

CREATE TABLE "Curriculum" (
    "id" text NOT NULL,
    "teacherId" text NOT NULL,
    "title" text NOT NULL,
    "description" text,
    "isActive" boolean NOT NULL DEFAULT true,
    "isPublished" boolean NOT NULL DEFAULT false,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "CurriculumItem" (
    "id" text NOT NULL,
    "sectionId" text NOT NULL,
    "title" text NOT NULL,
    "description" text,
    "sortOrder" integer NOT NULL DEFAULT 0,
    "difficulty" integer,
    "estimatedMinutes" integer,
    "resourceUrl" text,
    "notes" text,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "CurriculumSection" (
    "id" text NOT NULL,
    "curriculumId" text NOT NULL,
    "title" text NOT NULL,
    "description" text,
    "category" "CurriculumCategory",
    "sortOrder" integer NOT NULL DEFAULT 0,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "EmailPreference" (
    "id" text NOT NULL,
    "userId" text NOT NULL,
    "enabled" boolean NOT NULL DEFAULT true,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL,
    "type" "EmailType" NOT NULL
);

CREATE TABLE "EmailTemplate" (
    "id" text NOT NULL,
    "type" "EmailType" NOT NULL,
    "subject" text NOT NULL,
    "htmlBody" text NOT NULL,
    "variables" text NOT NULL,
    "description" text,
    "isActive" boolean NOT NULL DEFAULT true,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "Invoice" (
    "id" text NOT NULL,
    "teacherId" text NOT NULL,
    "studentId" text,
    "invoiceNumber" text NOT NULL,
    "month" text NOT NULL,
    "dueDate" timestamp(3) NOT NULL,
    "status" "InvoiceStatus" NOT NULL DEFAULT 'PENDING',
    "subtotal" integer NOT NULL,
    "total" integer NOT NULL,
    "paidAt" timestamp(3),
    "paymentMethod" text,
    "paymentNotes" text,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL,
    "customEmail" text,
    "customFullName" text
);

CREATE TABLE "InvoiceItem" (
    "id" text NOT NULL,
    "invoiceId" text NOT NULL,
    "description" text NOT NULL,
    "quantity" integer NOT NULL DEFAULT 1,
    "rate" integer NOT NULL,
    "amount" integer NOT NULL,
    "lessonDate" timestamp(3),
    "lessonId" text,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE "Lesson" (
    "id" text NOT NULL,
    "teacherId" text NOT NULL,
    "studentId" text NOT NULL,
    "date" timestamp(3) NOT NULL,
    "duration" integer NOT NULL,
    "notes" text,
    "homework" text,
    "progress" text,
    "status" "LessonStatus" NOT NULL DEFAULT 'SCHEDULED',
    "focusAreas" text,
    "songsPracticed" text,
    "nextSteps" text,
    "studentRating" integer,
    "teacherRating" integer,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL,
    "isRecurring" boolean NOT NULL DEFAULT false,
    "price" integer NOT NULL DEFAULT 0,
    "recurringId" text,
    "recurringSlotId" text,
    "timezone" text NOT NULL DEFAULT 'America/Chicago',
    "checklistItems" text,
    "version" integer NOT NULL DEFAULT 1
);

CREATE TABLE "LessonAttachment" (
    "id" text NOT NULL,
    "lessonId" text NOT NULL,
    "fileName" text NOT NULL,
    "originalName" text NOT NULL,
    "fileSize" integer NOT NULL,
    "mimeType" text NOT NULL,
    "fileUrl" text NOT NULL,
    "uploadedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE "LessonLink" (
    "id" text NOT NULL,
    "lessonId" text NOT NULL,
    "title" text NOT NULL,
    "url" text NOT NULL,
    "description" text,
    "linkType" "LinkType" NOT NULL DEFAULT 'WEBSITE',
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE "LibraryItem" (
    "id" text NOT NULL,
    "title" text NOT NULL,
    "description" text,
    "fileUrl" text NOT NULL,
    "fileName" text NOT NULL,
    "fileSize" integer NOT NULL,
    "teacherId" text NOT NULL,
    "isPublic" boolean NOT NULL DEFAULT false,
    "category" "LibraryCategory" DEFAULT 'TABLATURE',
    "tags" text,
    "downloadCount" integer NOT NULL DEFAULT 0,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL,
    "instrument" "Instrument" NOT NULL DEFAULT 'GUITAR'
);

CREATE TABLE "MonthlyBilling" (
    "id" text NOT NULL,
    "subscriptionId" text NOT NULL,
    "studentId" text NOT NULL,
    "teacherId" text NOT NULL,
    "month" text NOT NULL,
    "expectedLessons" integer NOT NULL,
    "actualLessons" integer NOT NULL DEFAULT 0,
    "ratePerLesson" integer NOT NULL,
    "totalAmount" integer NOT NULL,
    "status" "BillingStatus" NOT NULL DEFAULT 'PENDING',
    "billedAt" timestamp(3),
    "paidAt" timestamp(3),
    "paymentMethod" text,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "PasswordResetToken" (
    "id" text NOT NULL,
    "userId" text NOT NULL,
    "token" text NOT NULL,
    "expires" timestamp(3) NOT NULL,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE "Recommendation" (
    "id" text NOT NULL,
    "title" text NOT NULL,
    "description" text NOT NULL,
    "link" text,
    "category" "RecommendationCategory" NOT NULL,
    "teacherId" text NOT NULL,
    "price" text,
    "priority" integer NOT NULL DEFAULT 1,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "RecurringSlot" (
    "id" text NOT NULL,
    "teacherId" text NOT NULL,
    "studentId" text NOT NULL,
    "dayOfWeek" integer NOT NULL,
    "startTime" text NOT NULL,
    "duration" integer NOT NULL,
    "status" "SlotStatus" NOT NULL DEFAULT 'ACTIVE',
    "bookedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "cancelledAt" timestamp(3),
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL,
    "perLessonPrice" integer NOT NULL,
    "version" integer NOT NULL DEFAULT 1
);

CREATE TABLE "Session" (
    "id" text NOT NULL,
    "sessionToken" text NOT NULL,
    "userId" text NOT NULL,
    "expires" timestamp(3) NOT NULL
);

CREATE TABLE "SlotSubscription" (
    "id" text NOT NULL,
    "slotId" text NOT NULL,
    "studentId" text NOT NULL,
    "startMonth" text NOT NULL,
    "endMonth" text,
    "monthlyRate" integer NOT NULL,
    "status" "SubscriptionStatus" NOT NULL DEFAULT 'ACTIVE',
    "lastBilledMonth" text,
    "nextBillDate" timestamp(3),
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "StudentChecklist" (
    "id" text NOT NULL,
    "studentId" text NOT NULL,
    "title" text NOT NULL,
    "isActive" boolean NOT NULL DEFAULT true,
    "isArchived" boolean NOT NULL DEFAULT false,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL,
    "createdBy" text,
    "createdByRole" text
);

CREATE TABLE "StudentChecklistItem" (
    "id" text NOT NULL,
    "checklistId" text NOT NULL,
    "title" text NOT NULL,
    "description" text,
    "isCompleted" boolean NOT NULL DEFAULT false,
    "completedAt" timestamp(3),
    "dueDate" timestamp(3),
    "notes" text,
    "resourceUrl" text,
    "estimatedMinutes" integer,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL,
    "sortOrder" integer NOT NULL DEFAULT 0
);

CREATE TABLE "StudentCurriculumProgress" (
    "id" text NOT NULL,
    "studentId" text NOT NULL,
    "curriculumId" text NOT NULL,
    "startedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "completedAt" timestamp(3),
    "totalItems" integer NOT NULL DEFAULT 0,
    "completedItems" integer NOT NULL DEFAULT 0,
    "progressPercent" double precision NOT NULL DEFAULT 0,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "StudentInvitation" (
    "id" text NOT NULL,
    "teacherId" text NOT NULL,
    "studentId" text NOT NULL,
    "token" text NOT NULL,
    "expires" timestamp(3) NOT NULL,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE "StudentItemProgress" (
    "id" text NOT NULL,
    "curriculumProgressId" text NOT NULL,
    "itemId" text NOT NULL,
    "status" "ProgressStatus" NOT NULL DEFAULT 'NOT_STARTED',
    "startedAt" timestamp(3),
    "completedAt" timestamp(3),
    "teacherNotes" text,
    "studentNotes" text,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "StudentProfile" (
    "id" text NOT NULL,
    "userId" text NOT NULL,
    "teacherId" text NOT NULL,
    "joinedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "goals" text,
    "instrument" text NOT NULL DEFAULT 'guitar',
    "phoneNumber" text,
    "parentEmail" text,
    "emergencyContact" text,
    "isActive" boolean NOT NULL DEFAULT true,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL,
    "emailOnInvoice" boolean NOT NULL DEFAULT true,
    "emailOnLessonComplete" boolean NOT NULL DEFAULT true,
    "emailOnLessonReminder" boolean NOT NULL DEFAULT true
);

CREATE TABLE "SystemSettings" (
    "id" text NOT NULL DEFAULT 'system',
    "platformFeePercentage" double precision NOT NULL DEFAULT 10.0,
    "maxFileSize" integer NOT NULL DEFAULT 10485760,
    "allowedFileTypes" text NOT NULL DEFAULT 'pdf,doc,docx,jpg,png',
    "paymentsEnabled" boolean NOT NULL DEFAULT true,
    "libraryEnabled" boolean NOT NULL DEFAULT true,
    "recommendationsEnabled" boolean NOT NULL DEFAULT true,
    "updatedAt" timestamp(3) NOT NULL,
    "cancellationPolicyText" text NOT NULL DEFAULT 'Please cancel at least 2 hours in advance to avoid charges.',
    "defaultAdvanceBookingDays" integer NOT NULL DEFAULT 14,
    "defaultInvoiceDueDays" integer NOT NULL DEFAULT 14,
    "defaultLessonDuration30" boolean NOT NULL DEFAULT true,
    "defaultLessonDuration60" boolean NOT NULL DEFAULT true,
    "emailFooterText" text NOT NULL DEFAULT 'Thank you for choosing Guitar Strategies!',
    "emailSenderAddress" text NOT NULL DEFAULT 'onboarding@resend.dev',
    "emailSenderName" text NOT NULL DEFAULT 'Guitar Strategies',
    "enableBookingConfirmations" boolean NOT NULL DEFAULT true,
    "enableInvoiceNotifications" boolean NOT NULL DEFAULT true,
    "enableReminderEmails" boolean NOT NULL DEFAULT true,
    "invoiceNumberFormat" text NOT NULL DEFAULT 'INV-{YEAR}-{NUMBER}',
    "latePaymentReminderDays" integer NOT NULL DEFAULT 7
);

CREATE TABLE "TeacherAvailability" (
    "id" text NOT NULL,
    "teacherId" text NOT NULL,
    "dayOfWeek" integer NOT NULL,
    "startTime" text NOT NULL,
    "endTime" text NOT NULL,
    "isActive" boolean NOT NULL DEFAULT true,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL,
    "version" integer NOT NULL DEFAULT 1
);

CREATE TABLE "TeacherLessonSettings" (
    "id" text NOT NULL,
    "teacherId" text NOT NULL,
    "allows30Min" boolean NOT NULL DEFAULT true,
    "allows60Min" boolean NOT NULL DEFAULT true,
    "price30Min" integer NOT NULL,
    "price60Min" integer NOT NULL,
    "advanceBookingDays" integer NOT NULL DEFAULT 21,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "TeacherProfile" (
    "id" text NOT NULL,
    "userId" text NOT NULL,
    "bio" text,
    "hourlyRate" integer,
    "isActive" boolean NOT NULL DEFAULT true,
    "venmoHandle" text,
    "paypalEmail" text,
    "zelleEmail" text,
    "timezone" text NOT NULL DEFAULT 'America/Chicago',
    "phoneNumber" text,
    "profileImageUrl" text,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL,
    "isAdmin" boolean NOT NULL DEFAULT false
);

CREATE TABLE "User" (
    "id" text NOT NULL,
    "email" text NOT NULL,
    "password" text,
    "name" text NOT NULL,
    "role" "Role" NOT NULL DEFAULT 'STUDENT',
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL
);

CREATE TABLE "VerificationToken" (
    "identifier" text NOT NULL,
    "token" text NOT NULL,
    "expires" timestamp(3) NOT NULL
);
